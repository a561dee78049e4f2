"""An intervention -> files that other programs run."""

from clas_lens.doors import open_door

open_door(__name__)
