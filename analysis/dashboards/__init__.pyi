from .bench import BenchView as BenchView
from .bench_engine import SteeringBench as SteeringBench
from .bench_result import BenchResult as BenchResult
from .layer_explorer import LayerExplorer as LayerExplorer
from .neuron_browser import NeuronBrowser as NeuronBrowser
