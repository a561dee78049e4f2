"""analysis: tidy frames to plotly figures. It imports clas_lens; clas_lens never imports it (its command line apart)."""

from analysis.alignment_figures import cosine_to_english, gain_vs_alignment
from analysis.curves import alpha_curve, beta_gamma_curve
from analysis.files import save_figure
from analysis.gains import forest, gain_heatmap
from analysis.languages import language_style
from analysis.layers import layer_distribution
from analysis.look import themed
from analysis.maps import tsne_map
from analysis.neurons import neuron_browser, neuron_distribution
from analysis.sharing import category_flow, overlap_matrix

__all__ = [
    "alpha_curve",
    "beta_gamma_curve",
    "category_flow",
    "cosine_to_english",
    "forest",
    "gain_heatmap",
    "gain_vs_alignment",
    "language_style",
    "layer_distribution",
    "neuron_browser",
    "neuron_distribution",
    "overlap_matrix",
    "save_figure",
    "themed",
    "tsne_map",
]
