from .export import PictureError as PictureError
from .export import export_figures as export_figures
from .export import save_figure as save_figure
from .languages import language_style as language_style
from .look import themed as themed
from .theme import prepare_notebook as prepare_notebook
