"""clas_lens: measure, categorise and steer the MLP neurons of multilingual models, on TransformerLens.

Names are loaded on first use (PEP 562), so that importing the package costs nothing.
"""

from clas_lens.doors import open_door

__version__ = "0.2.0"

open_door(__name__)
