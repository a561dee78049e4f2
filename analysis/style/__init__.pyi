from analysis.style.export import ExportError as ExportError
from analysis.style.export import export_figures as export_figures
from analysis.style.export import save_figure as save_figure
from analysis.style.languages import language_style as language_style
from analysis.style.look import themed as themed
from analysis.style.theme import prepare_notebook as prepare_notebook
