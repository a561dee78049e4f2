"""Any name -> a model with hook points."""

from clas_lens.doors import open_door

open_door(__name__)
