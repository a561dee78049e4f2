"""Draw the README's picture from a run folder: python docs/images/make.py runs/demo (needs kaleido and a Chromium)."""

import sys
from pathlib import Path

from analysis import layer_distribution
from clas_lens.run_folder import RunFolder
from clas_lens.stages import load_categories

cats, layers = load_categories(RunFolder(Path(sys.argv[1])))
figure = layer_distribution(cats, bridge_layers=layers)
figure.write_image(Path(__file__).parent / "layer_distribution.png", scale=1.5)
