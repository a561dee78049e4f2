"""What is done to an activation, and `steer`."""

from clas_lens.doors import open_door

open_door(__name__)
