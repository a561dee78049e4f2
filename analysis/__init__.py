"""analysis: tidy frames to plotly figures. It imports clas_lens; clas_lens never imports it (its command line apart)."""

from clas_lens.doors import open_door

open_door(__name__)
