"""Sentences inside the model."""

from clas_lens.doors import open_door

open_door(__name__)
