"""The seam without Ray: parts of a language, who gets how many CPUs, what is sent of a model, and what is refused."""

import inspect
import pickle
import random
import sys
from argparse import Namespace
from dataclasses import replace

import pytest
import torch

import clas_lens as cl
from clas_lens.cli import main
from clas_lens.cluster.capacity import GIB, Room, plan_workers
from clas_lens.cluster.errors import ClusterError
from clas_lens.cluster.runner import RayCluster
from clas_lens.cluster.work import Here, runner_of
from clas_lens.cluster.worker import ModelSpec
from clas_lens.corpus import reading
from clas_lens.models.origin import mark_origin, origin_of
from clas_lens.representations.effects import _first
from clas_lens.statistics.collect import _whole_languages, measure_item
from clas_lens.study.config import ClusterConfig, StudyConfig
from clas_lens.study.options import cluster_config
from clas_lens.study.plan import plan_study


class Shuffled(Here):
    """A cluster whose results come in any order."""

    def results(self, model, work, items, tell):
        done = list(super().results(model, work, items, tell))
        random.Random(0).shuffle(done)
        yield from done


def test_languages_are_the_same_in_parts_and_in_any_order(llama, small_corpus, small_stats, monkeypatch):
    monkeypatch.setattr(reading, "PART", 3)
    options = {"batch_size": 2, "progress": False}
    here = cl.collect_statistics(llama, small_corpus, **options)
    there = cl.collect_statistics(llama, small_corpus, cluster=Shuffled(), **options)
    for name, values in here.sums.tensors().items():
        assert torch.equal(values, there.sums.tensors()[name]), name
    torch.testing.assert_close(here.mean, small_stats.mean)
    assert torch.equal(here.max_example, small_stats.max_example)


def test_parts_hold_every_batch_once(llama, small_corpus, monkeypatch):
    monkeypatch.setattr(reading, "PART", 4)
    texts = reading.tokenize_corpus(llama, small_corpus, 64)
    whole = reading.readings(llama, texts, 3)[0]
    parts = whole.parts()
    assert [sum(map(len, part.batches)) for part in parts] == [6, 6]
    assert [part.number for part in parts] == [0, 1]
    assert tuple(batch for part in parts for batch in part.batches) == whole.batches
    measured = [(one, measure_item(llama, one, lambda n: None, pooling="sample", histograms=False)) for one in parts]
    ((code, sums),) = _whole_languages(parts, measured[::-1])
    assert (code, sums.n_samples) == (whole.language, 12)


@pytest.mark.parametrize("cluster", [None, Shuffled()], ids=["here", "shuffled"])
def test_rows_and_effects_do_not_depend_on_the_order(llama, small_cats, small_corpus, tmp_path, cluster):
    task = cl.tasks.XNLI("bundled", ("en", "de"), limit=3, instruction="en", style="plain")
    clas = cl.Clas(small_cats, layers=(1, 2))
    options = {"progress": False, "batch_size": 2, "cluster": cluster}
    rows = cl.evaluate(llama, task, {"base": None, "clas": clas}, chunk_size=2, out=tmp_path, **options)
    assert [*rows["language"].unique()] == ["en", "de"]
    assert not list(tmp_path.rglob("*.parts"))
    expected = cl.evaluate(llama, task, {"base": None, "clas": clas}, chunk_size=2, progress=False, batch_size=2)
    assert rows.equals(expected)
    effects = cl.measure_effects(llama, clas, small_corpus, **options)
    assert effects.equals(cl.measure_effects(llama, clas, small_corpus, progress=False, batch_size=2))
    assert effects["language"].tolist() == list(small_corpus.languages)


def test_the_anchor_comes_first():
    done = [(Namespace(language=code), code) for code in ("de", "zh", "en", "ar")]
    assert [code for _, code in _first("en", iter(done))] == ["en", "de", "zh", "ar"]


# --- how many workers ---

ONE = Room(cpus=[16.0], gpus=8, memory=100 * GIB)


@pytest.mark.parametrize(
    ("room", "asked", "expected"),
    [
        (ONE, {}, (8, 2, 1.0)),
        (ONE, {"workers": 4}, (4, 4, 1.0)),
        (ONE, {"gpus_per_worker": 0.5}, (16, 1, 0.5)),
        (ONE, {"gpus_per_worker": 2.0}, (4, 4, 2.0)),
        (ONE, {"gpus_per_worker": 0.0}, (8, 2, 0.0)),  # 1.5 * 7 + 1.5 = 12 GiB each
        (replace(ONE, gpus=0, memory=5 * GIB), {}, (1, 16, 0.0)),
        (Room([4.0, 4.0, 4.0], 0, 900 * GIB), {"workers": 4}, (4, 2, 0.0)),  # 3 each would leave room for three
        (Room([4.0, 4.0, 4.0], 0, 900 * GIB), {"workers": 5}, (5, 2, 0.0)),
    ],
)
def test_workers_fit_the_cluster(room, asked, expected):
    plan = plan_workers(room, **{"workers": None, "gpus_per_worker": None, **asked}, weights=7 * GIB)
    assert (plan.workers, plan.cpus, plan.gpus) == expected


def test_the_number_of_workers_has_a_reason():
    none = {"workers": None, "gpus_per_worker": None, "weights": 7 * GIB}
    assert plan_workers(ONE, **none).reason == "8 GPUs, 1 a worker"
    assert (
        "40.0 GiB of memory, and a worker takes about 12.0 GiB"
        in plan_workers(Room([16.0], 0, 40 * GIB), **none).reason
    )
    with pytest.raises(ClusterError, match="9 workers of 1 GPU need 9 GPUs, and the cluster has 8"):
        plan_workers(ONE, workers=9, gpus_per_worker=None, weights=1)
    with pytest.raises(ClusterError, match="17 workers of 0 GPUs need 17 CPUs, and the cluster has 16"):
        plan_workers(ONE, workers=17, gpus_per_worker=0, weights=1)


# --- what is sent of a model ---


def test_a_model_is_sent_by_name_and_checked(folders, llama):
    spec = pickle.loads(pickle.dumps(ModelSpec.of(llama, device="cpu", threads=1)))
    assert len(pickle.dumps(spec)) < 1000
    assert spec.origin.name == str(folders["llama"])
    assert torch.equal(spec.load()("a b c"), llama("a b c"))
    mark_origin(llama, str(folders["qwen2"]), "hooked")
    try:
        with pytest.raises(ClusterError, match=r"tiny-qwen2 on .* is another model than the driver's"):
            ModelSpec.of(llama, device="cpu", threads=1).load()
    finally:
        mark_origin(llama, str(folders["llama"]), "hooked")
    with pytest.raises(ClusterError, match=r"a worker on .* has .*; the driver has clas-lens 0.0.0"):
        replace(spec, versions={"clas-lens": "0.0.0"}).load()


def test_a_model_without_a_name_cannot_be_sent(hf_models):
    model = cl.load_model(hf_models["llama"])
    assert origin_of(model) is None
    with pytest.raises(ClusterError, match="load the model by its name"):
        ModelSpec.of(model, device="cpu", threads=1)


# --- what is refused ---


def test_what_is_no_cluster_is_refused(llama, small_corpus):
    for wrong in ("auto", 2, RayCluster):
        with pytest.raises(ValueError, match=r"cluster must be a cl\.cluster\.RayCluster\(\.\.\.\)"):
            runner_of(wrong)
    with pytest.raises(ValueError, match="cluster must be"):
        inspect.unwrap(cl.collect_statistics)(llama, small_corpus, cluster="auto")
    with pytest.raises(ValueError, match="workers must be a whole number, at least 1; got 0"):
        RayCluster(workers=0)


def test_without_ray_one_line_says_what_to_install(folders, tmp_path, monkeypatch, capsys, llama, small_corpus):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"^a cluster needs Ray: pip install 'clas-lens\[cluster\]'$"):
        cl.collect_statistics(llama, small_corpus, cluster=RayCluster())
    options = ["--model", str(folders["llama"]), "--languages", "en,de", "--limit", "2", "--out", str(tmp_path / "run")]
    assert main(["collect", "--ray", *options]) == 1
    assert capsys.readouterr().err == "clas-lens: error: a cluster needs Ray: pip install 'clas-lens[cluster]'\n"


def test_nothing_at_an_address_is_said_at_once(llama, small_corpus):
    pytest.importorskip("ray")
    with pytest.raises(
        ClusterError, match=r"no Ray cluster at '127.0.0.1:1' \(.*refused.*\): start one \(ray start --head\)"
    ):
        cl.collect_statistics(llama, small_corpus, cluster=RayCluster(address="127.0.0.1:1"))


def test_options_and_table_of_a_cluster(capsys):
    configured = ClusterConfig(workers=8, address="auto")
    assert cluster_config(Namespace(ray=None)) is None
    assert cluster_config(Namespace(ray=None), configured) == configured
    assert cluster_config(Namespace(ray=False), configured) is None
    assert cluster_config(Namespace(ray=True, gpus_per_worker=0.5)) == ClusterConfig(gpus_per_worker=0.5)
    assert cluster_config(Namespace(ray=None, workers=2), configured) == ClusterConfig(workers=2, address="auto")
    assert main(["collect", "--workers", "2"]) == 1
    assert "--workers is for a cluster: give --ray, too" in capsys.readouterr().err


def test_where_a_study_runs_is_not_what_it_is():
    study = StudyConfig.model_validate({"name": "s", "cluster": {"workers": 2}})
    assert study.model_dump(mode="json") == StudyConfig(name="s").model_dump(mode="json")


def test_a_plan_for_workers():
    study = cl.study.load_study("paper-llama-xnli")
    plain, one, many = plan_study(study), plan_study(study, rate=1000.0), plan_study(study, workers=8, rate=1000.0)
    assert list(plain.columns) == ["stage", "what", "passes", "tokens", "disk_mb"]
    assert one["hours"].sum() == pytest.approx(plain["tokens"].sum() / 1000 / 3600)
    search = many.set_index("stage").loc["search xnli"]
    assert search["items"] == 15 * 2  # languages x chunks of 200 examples
    assert search["tokens_a_worker"] == search["tokens"] * 4 / 30  # the busiest of 8 does 4 of 30
    with pytest.raises(ValueError, match="rate must be a finite number"):
        plan_study(study, rate=0)
