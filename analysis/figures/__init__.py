"""Tidy frames -> plotly figures."""

from clas_lens.doors import open_door

open_door(__name__)
