"""Studies: files refused when wrong, plans without a model, and runs that a kill does not change."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

import pandas as pd
import pytest
from tiny import shared_data

from analysis.report.figures import drawn_figures
from analysis.report.run import RunData
from clas_lens.artifacts import ArtifactError
from clas_lens.baselines.load import load_intervention
from clas_lens.models.presets import PRESETS
from clas_lens.study.config import TaskConfig
from clas_lens.study.configured import task_for
from clas_lens.study.folder import RunFolder
from clas_lens.study.order import run_study
from clas_lens.study.plan import plan_study
from clas_lens.study.toml import load_study
from clas_lens.tasks.known import TASKS
from clas_lens.vocabulary import Method

STUDY = """
name = "tiny"

[collect]
model = "{model}"
corpus = "bundled"
part = "statistics"
languages = ["en", "de", "zh"]
limit = 6
batch_size = 3

[categorize]
layers = [2]

[methods]
methods = {methods}
lape_percentile = 50.0
lape_share = 0.2

[search]
alphas = [-1, 2]
betas = [0, 0.4]
gammas = [0, 0.2]
windows = true
fixed = ["int-mu"]

[evaluate]
chunk_size = 2

[[tasks]]
task = "xnli"
data = "bundled"
languages = ["en", "de"]
tuning_limit = 3
limit = 5
instruction = "en"

[[tasks]]
task = "xquad"
data = "bundled"
languages = ["en", "de"]
tuning_limit = 2
limit = 3
max_tokens = 150
max_new_tokens = 4
"""

# Writes a line for every chunk of rows that is on the disk, and then runs the study.
LOGGED = """
import sys
from pathlib import Path
import torch
from clas_lens.evaluation.store import RowStore
from clas_lens.study import load_study, run_study

save = RowStore.save

def logged(self, plan, item, name, table, **how):
    save(self, plan, item, name, table, **how)
    if item.number is not None:
        with open(sys.argv[3], "a") as log:
            log.write(f"{self.folder} {item.language} {name} {item.number}\\n")

RowStore.save = logged
torch.set_num_threads(1)
run_study(load_study(sys.argv[1]), Path(sys.argv[2]), print, progress=False)
"""


def write_study(folder, model, methods):
    path = folder / "tiny.toml"
    path.write_text(STUDY.format(model=model, methods=json.dumps(list(methods))), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def study(folders, tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("study"), folders["llama"], ["base", "int-mu", "clas", "random"])


@pytest.fixture(scope="module")
def undisturbed(study, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    return out, run_study(load_study(study), out, print, progress=False).rows


def test_every_method(folders, tmp_path):
    path = write_study(tmp_path, folders["qwen2"], get_args(Method))
    config = load_study(path).model_copy(update={"search": None, "tasks": load_study(path).tasks[:1]})
    rows = run_study(config, tmp_path / "run", print, progress=False).rows["xnli"]
    assert set(rows["intervention"]) == set(get_args(Method))
    scores = rows.pivot(index=["language", "id"], columns="intervention", values="p_neutral")
    changed = {name: not scores.loc["de", name].equals(scores.loc["de", "base"]) for name in scores}
    assert all(changed[name] for name in changed if name != "base"), changed
    assert all(scores.loc["en", name].equals(scores.loc["en", "base"]) for name in scores)
    for name in set(get_args(Method)) - {"base"}:
        assert load_intervention(tmp_path / "run" / "methods" / "xnli" / name).anchor == "en"


def test_a_run_folder_has_everything(undisturbed):
    out, rows = undisturbed
    assert len(rows["xnli"]) == 4 * 2 * 5
    assert len(rows["xquad"]) == 4 * 2 * 3
    manifest = RunFolder(out).read_manifest()
    stages = [f"{stage} {task}" for task in ("xnli", "xquad") for stage in ("search", "evaluate")]
    assert set(manifest) >= {"study", "collect", "categorize", *stages}
    assert set(manifest["search xnli"]["chosen"]) == set(rows["xnli"]["intervention"]) - {"base", "int-mu"}
    assert manifest["evaluate xnli"]["overlapping"] == 0
    grid = pd.read_parquet(out / "search" / "xnli" / "beta_gamma.parquet")
    assert sorted(set(zip(grid["alpha"], grid["beta"], grid["gamma"], strict=True))) == [
        (1.0, beta, gamma) for beta in (0.0, 0.4) for gamma in (0.0, 0.2)
    ]
    assert {"beta_gamma_xnli", "window_scores"} <= set(drawn_figures(RunData.open(out)))
    windows = pd.read_parquet(out / "tables" / "xnli_windows.parquet")
    own = windows[windows["own"]].sort_values(["alpha", "language"])
    clas = pd.read_parquet(out / "search" / "xnli" / "clas.parquet").sort_values(["alpha", "language"])
    assert windows["layers"].drop_duplicates().tolist() == ["0", "1", "2"]
    assert own["score"].tolist() == clas["score"].tolist()
    comparison = pd.read_parquet(out / "tables" / "xnli_comparison.parquet")
    assert set(comparison["intervention"]) == set(rows["xnli"]["intervention"]) - {"base"}
    assert (comparison.loc[comparison["language"] == "en", "gain"] == 0).all()
    for folder in (out / "methods" / "xnli").iterdir():
        tuned = load_intervention(folder)
        assert tuned.alpha == manifest["evaluate xnli"]["methods"][folder.name]["alpha"]


def test_killed_at_random_moments_the_rows_are_the_same_and_no_chunk_is_done_twice(study, undisturbed, tmp_path):
    rng = random.Random(0)
    log, out = tmp_path / "log", tmp_path / "run"
    log.touch()
    command = [sys.executable, "-W", "ignore", "-c", LOGGED, str(study), str(out), str(log)]
    for _ in range(3):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        enough = len(log.read_text().splitlines()) + rng.randint(1, 40)
        while process.poll() is None and len(log.read_text().splitlines()) < enough:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    done = log.read_text().splitlines()
    assert len(done) == len(set(done)) > 40, "no chunk twice"
    for task in ("xnli", "xquad"):
        found, expected = (
            pd.read_parquet(Path(root) / "tables" / f"{task}_rows.parquet") for root in (out, undisturbed[0])
        )
        pd.testing.assert_frame_equal(found, expected, check_exact=True)
    assert not list(out.rglob("*.parts"))


def test_a_folder_of_another_study_is_left_alone(study, undisturbed):
    other = load_study(study).model_copy(update={"name": "other"})
    with pytest.raises(ArtifactError, match="holds a run of another study"):
        run_study(other, undisturbed[0], print, progress=False)


def test_plans_count_what_is_asked_for():
    """By hand for Llama 3.1 8B: bridge layers from 24 of 32, so that a setting of its own takes a quarter of a pass."""
    plan = plan_study(load_study("paper-llama-xnli")).set_index("stage")
    assert plan.loc["collect", "passes"] == 12 * 100
    grids = 4 * 11 + 16  # alphas of clas and three random masks; Figure 6
    assert plan.loc["search xnli", "passes"] == 15 * 200 * (0.75 + grids * 0.25)
    assert plan.loc["evaluate xnli", "passes"] == 15 * 5010 * (1 + 1 + 4 * 0.25)  # base, int-mu, the same four
    assert plan.loc["report", "passes"] == 2 * 12 * 100
    xquad = plan_study(load_study("paper-qwen-xquad")).set_index("stage")
    assert xquad.loc["evaluate xquad", "what"] == (
        "xquad: 6 methods x 12 languages x 1190 examples; shows gains in a language from 2.6 or 3.6 points on, where 10% or "
        "20% of its answers change"
    )


def test_a_plan_counts_every_layer_that_a_method_is_searched_at():
    """Unit differences of means at 31 of Llama's 32 layers, each with 11 alphas and from its own layer on."""
    study = load_study("paper-llama-xnli")
    methods = study.methods.model_copy(update={"methods": ("base", "diff-mean-unit")})
    step = plan_study(study.model_copy(update={"methods": methods})).set_index("stage").loc["search xnli"]
    layers = 11 * sum(1 - layer / 32 for layer in range(31))
    assert step["passes"] == round(15 * 200 * (30 / 32 + layers + 16 * 0.25))  # layers that all share; Figure 6
    assert "1 methods x 11 alphas and 16 pairs of beta and gamma, diff-mean-unit at 31 layers" in step["what"]


def test_a_plan_counts_every_window_of_layers():
    """Llama's bridge is as wide as the paper's; each window takes the layers from its first on, at 11 alphas."""
    study = load_study("paper-llama-xnli")
    search = study.search.model_copy(update={"windows": True})
    plain, step = (
        plan_study(one).set_index("stage").loc["search xnli"]
        for one in (study, study.model_copy(update={"search": search}))
    )
    width = len(PRESETS["llama-3.1-8b"].bridge_layers)
    firsts = range(32 - 2 - width + 1)
    more = 15 * 200 * 11 * sum(1 - first / 32 for first in firsts)
    assert step["passes"] == pytest.approx(plain["passes"] + more, abs=1)
    assert f"clas at {len(firsts)} windows of layers x 11 alphas" in step["what"]


@pytest.mark.parametrize("use", ["tuning", "test"])
@pytest.mark.parametrize("task", ["xnli", "xquad"])
def test_the_tasks_of_a_study_and_its_plan_agree_on_real_data(task, use):
    """With the default of 200 tuning examples, which XQuAD's tuning articles must have."""
    config = TaskConfig(task=task, data=str(shared_data("data", task)), languages=("en", "zh"))
    expected = TASKS[task].expected(config, use)
    assert (2, len(task_for(config, use))) == (expected.languages, expected.examples)
