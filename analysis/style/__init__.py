"""What every figure looks like: colours, labels, panels, files."""

from clas_lens.doors import open_door

open_door(__name__)
