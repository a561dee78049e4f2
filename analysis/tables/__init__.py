"""Numbers as tables, the paper's beside them."""

from clas_lens.doors import open_door

open_door(__name__)
