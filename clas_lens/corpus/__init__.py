"""Parallel text -> tokens -> batches read through a model."""

from clas_lens.doors import open_door

open_door(__name__)
