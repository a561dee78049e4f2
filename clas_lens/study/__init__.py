"""A TOML file -> a run folder."""

from clas_lens.doors import open_door

open_door(__name__)
