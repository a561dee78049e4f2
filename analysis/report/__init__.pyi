from analysis.report.build import build_report as build_report
from analysis.report.figures import drawn_figures as drawn_figures
from analysis.report.figures import run_figures as run_figures
from analysis.report.methods import methods_paragraphs as methods_paragraphs
from analysis.report.pieces import Drawn as Drawn
from analysis.report.pieces import Missing as Missing
from analysis.report.run import RunData as RunData
from analysis.report.tables import run_tables as run_tables
