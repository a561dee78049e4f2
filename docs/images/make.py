"""Draw the README's pictures from a run folder: python docs/images/make.py runs/demo (needs a Chromium)."""

import sys
from pathlib import Path

from analysis.report.figures import drawn_figures
from analysis.report.run import RunData
from analysis.style.export import export_figures

WANTED = ("layer_distribution", "cosine_to_english", "tsne_map")

figures = drawn_figures(RunData.open(sys.argv[1]))
missing = [name for name in WANTED if name not in figures]
if missing:
    sys.exit(f"no {missing[0]} in {sys.argv[1]}; there are: {', '.join(figures)}")
export_figures({name: figures[name] for name in WANTED}, Path(__file__).parent, ["png"])
