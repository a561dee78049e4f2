from analysis.tables.paper import PAPER_MODELS as PAPER_MODELS
from analysis.tables.paper import paper_outputs as paper_outputs
from analysis.tables.paper import paper_summary as paper_summary
from analysis.tables.paper import paper_table as paper_table
from analysis.tables.results import decision_table as decision_table
from analysis.tables.results import results_table as results_table
from analysis.tables.views import decision_view as decision_view
from analysis.tables.views import results_view as results_view
