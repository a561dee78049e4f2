"""Dashboards for notebooks: they need the `notebook` extra, and leave a picture where widgets do not run.

Names are loaded on first use, so that the engines are there without ipywidgets.
"""

from clas_lens.doors import open_door

open_door(__name__, extra="notebook")
