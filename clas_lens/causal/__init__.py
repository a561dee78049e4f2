"""What a part of the model causes: it is edited, or exchanged, and the answer is looked at."""

from clas_lens.doors import open_door

open_door(__name__)
