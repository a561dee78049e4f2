"""analysis: tidy frames to plotly figures. It imports clas_lens, which loads it when `clas_lens.analysis` is first asked for.

Files in here import each other relatively: where something else is called `analysis`, this package is `clas_lens.analysis`.
"""

from clas_lens.doors import open_door

open_door(__name__)
