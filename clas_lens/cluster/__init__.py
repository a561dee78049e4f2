"""Items of work -> their results, here or on the workers of a Ray cluster."""

from clas_lens.doors import open_door

open_door(__name__)
