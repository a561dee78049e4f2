"""analysis: tidy frames to plotly figures. It imports clas_lens; clas_lens never imports it (its command line apart)."""

from analysis.files import save_figure
from analysis.layers import layer_distribution

__all__ = ["layer_distribution", "save_figure"]
