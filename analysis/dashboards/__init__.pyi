from analysis.dashboards.bench import BenchView as BenchView
from analysis.dashboards.bench_engine import SteeringBench as SteeringBench
from analysis.dashboards.bench_result import BenchResult as BenchResult
from analysis.dashboards.layer_explorer import LayerExplorer as LayerExplorer
from analysis.dashboards.neuron_browser import NeuronBrowser as NeuronBrowser
