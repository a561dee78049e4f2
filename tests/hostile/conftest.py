"""A small world to be hostile to: a tiny model, what was measured on it, a task's rows, and a run folder."""

from types import SimpleNamespace

import jaxtyping
import pytest
from report_runs import full_run
from tiny import BACKEND

import clas_lens as cl


@pytest.fixture(autouse=True)
def as_users_run_it():
    """Without the runtime checks that other tests have: users see what the code itself says."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def world(folders, hf_models, lens_models, small_corpus, small_stats, small_cats, tmp_path_factory):
    """Everything that a case may take; none of it may be changed."""
    model = lens_models["llama", BACKEND]
    few = small_corpus.take(range(6))
    clas = cl.Clas(small_cats, layers=(1, 2), alpha=-2.0)
    task = cl.tasks.XQuAD("bundled", ("en", "de"), limit=2, max_new_tokens=2)
    return SimpleNamespace(
        folder=folders["llama"],
        hf=hf_models["llama"],
        model=model,
        other=lens_models["qwen2", BACKEND],
        corpus=few,
        stats=small_stats,
        cats=small_cats,
        clas=clas,
        before=cl.collect_representations(model, few, [2, 3], progress=False),
        after=cl.collect_representations(model, few, [2, 3], intervention=clas, progress=False),
        last=cl.collect_representations(model, few, [2], pool="last", progress=False),
        task=task,
        rows=cl.evaluate(model, task, {"base": None, "clas": clas}, allow_overlap=True, progress=False),
        run=full_run(tmp_path_factory.mktemp("hostile") / "run", model),
        new=lambda: tmp_path_factory.mktemp("case"),
    )
