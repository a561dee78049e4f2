"""The stages of one task, as functions of values."""

import pandas as pd
import pytest

import clas_lens as cl
from clas_lens.evaluation.search import SearchResult
from clas_lens.study.config import EvaluateConfig, SearchConfig, TaskConfig
from clas_lens.study.folder import RunFolder
from clas_lens.study.stages import Answering, kept_searches, search_stage, searched_grids


@pytest.fixture
def clas(small_cats):
    return cl.Clas(small_cats, layers=(1,), alpha=-3.0)


def test_a_search_tries_every_method_alike_and_the_grid_at_alpha_1(clas):
    config = SearchConfig(betas=(0.0, 0.4), gammas=(0.2,))
    grids = searched_grids([{"alpha": 2.0}], config, {"base": None, "clas": clas}, clas)
    assert grids["clas"] == (clas, [{"alpha": 2.0}])
    steered, settings = grids["beta_gamma"]
    assert (steered.alpha, set(grids)) == (1.0, {"clas", "beta_gamma"})
    assert [*settings] == [{"beta": 0.0, "gamma": 0.2}, {"beta": 0.4, "gamma": 0.2}]


def test_a_search_of_nothing_is_refused(clas, llama, tmp_path):
    by = Answering(RunFolder(tmp_path), llama, EvaluateConfig())
    source = TaskConfig(data="bundled", languages=("en", "de"), tuning_limit=2, instruction="en")
    with pytest.raises(ValueError, match=r"xnli: nothing to search: .* \(fixed: clas\); name one that has"):
        search_stage(by, source, SearchConfig(fixed=("clas",)), {"base": None}, clas)
    assert not any(tmp_path.iterdir())


def test_searches_are_found_again_by_method(clas, tmp_path):
    folder = RunFolder(tmp_path)
    table = pd.DataFrame({"task": ["xnli"], "alpha": [-3.0], "language": ["de"], "score": [50.0], "n": [2]})
    SearchResult(table, {"alpha": -3.0}, clas, 4.0, 8.0).save(folder.searched("xnli", "clas"))
    assert kept_searches(folder, "xnli", {"base": None, "clas": clas})["clas"].passes == 4.0
    assert kept_searches(folder, "xquad", {"clas": clas}) == {}
