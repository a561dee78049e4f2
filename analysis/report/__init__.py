"""A run folder as figures and one page."""

from clas_lens.doors import open_door

open_door(__name__)
