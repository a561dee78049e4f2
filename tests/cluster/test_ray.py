"""Two workers on a Ray of this machine against one process: the same files, through deaths of workers and of the driver.

Skipped without the extra `cluster`. Starting Ray and the workers takes most of the time.
"""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import psutil
import pytest
from safetensors.torch import load_file

import clas_lens as cl
from clas_lens.cluster.connection import connect
from clas_lens.cluster.errors import ClusterError
from clas_lens.cluster.runner import RayCluster
from clas_lens.study import order, run

ray = pytest.importorskip("ray")
MANY = "CLAS_LENS_KILLS" in os.environ
SMALL = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": 10**8}
STUDY = """
name = "small"
[collect]
model = "{model}"
languages = ["en", "de", "zh"]
part = "statistics"
limit = 6
batch_size = 2
[categorize]
layers = [1, 2]
[methods]
methods = ["base", "clas", "random", "diff-mean"]
[search]
alphas = [-2, 1]
[evaluate]
batch_size = 2
chunk_size = 2
[report]
examples = 4
[[tasks]]
task = "xnli"
data = "bundled"
languages = ["en", "de"]
tuning_limit = 3
limit = 5
instruction = "en"
style = "plain"
"""


@pytest.fixture(scope="module")
def address():
    """A Ray of this machine, with room for two workers."""
    connected, ours = connect(None, SMALL, print)
    assert ours
    yield connected.get_runtime_context().gcs_address
    connected.shutdown()


@pytest.fixture(scope="module")
def cluster(address):
    with RayCluster(workers=2) as found:
        yield found


@pytest.fixture(scope="module")
def study_file(folders, tmp_path_factory):
    path = tmp_path_factory.mktemp("study") / "small.toml"
    path.write_text(STUDY.format(model=folders["llama"]))
    return path


@pytest.fixture(scope="module")
def expected(study_file, tmp_path_factory):
    """The study by this process alone."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    order.run_study(cl.study.load_study(study_file), folder, run.silent, progress=False)
    return contents(folder)


def contents(folder):
    """By file: tensors, or tables; whatever says when it was made aside."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix == ".parquet":
            found[name] = pd.read_parquet(path)
        elif path.suffix == ".safetensors":
            found[name] = load_file(path)
    return found


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, content in expected.items():
        if isinstance(content, pd.DataFrame):
            pd.testing.assert_frame_equal(found[name], content, check_exact=True)
        else:
            assert found[name].keys() == content.keys()
            for part, values in content.items():
                assert bool((found[name][part] == values).all()), (name, part)


def workers_of(parent):
    """The processes of workers that are there."""
    named = [(process, process.name()) for process in psutil.Process(parent).children(recursive=True)]
    return [process for process, name in named if name.startswith("ray::Worker")]


# --- the same as one process ---


def test_a_study_is_the_same_to_the_last_bit(cluster, study_file, expected, tmp_path, llama):
    config = cl.study.load_study(study_file)
    order.run_study(config, tmp_path / "run", run.silent, progress=False, cluster=cluster)
    assert_equal(contents(tmp_path / "run"), expected)
    # What a cluster has made one process goes on with, and the other way round.
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "rows").rglob("*.parquet")}
    order.run_study(config, tmp_path / "run", run.silent, progress=False)
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_hooks_of_ones_own_would_not_be_there(cluster, llama, small_corpus):
    with llama.hooks([("blocks.0.hook_resid_pre", lambda value, hook: value)]):
        with pytest.raises(ClusterError, match="the model has hooks"):
            cl.collect_statistics(llama, small_corpus, cluster=cluster, progress=False)


# --- what dies, and what fails ---


def items(n):
    return [SimpleNamespace(language="de", number=number) for number in range(n)]


def made_by(log, seconds=0.1, failing=None):
    """Work that writes down each beginning, and fails at one item."""

    def work(model, item, tell, log=str(log)):
        import os as system
        import time as clock

        with open(log, "a") as file:  # noqa: PTH123 - nothing of this module is known where it runs
            file.write(f"{item.number}\n")
        clock.sleep(seconds)
        if failing is not None and item.number == failing[0]:
            if failing[1] == "dies":
                system.kill(system.getpid(), 9)
            raise ValueError("poisoned")
        tell(1)
        return item.number**2

    return work


@contextmanager
def killing(kills, between):
    """Workers are killed while the block runs, so many at random moments so many seconds apart; gives the list of them."""
    ended, killed = threading.Event(), []

    def kill():
        while len(killed) < kills and not ended.wait(random.uniform(*between)):
            for victim in random.sample(workers_of(os.getpid()), k=1) if workers_of(os.getpid()) else ():
                victim.kill()
                killed.append(victim.pid)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield killed
    finally:
        ended.set()
        killer.join()


def test_a_worker_that_dies_is_replaced_and_its_item_done_again(cluster, llama, tmp_path):
    told, log = [], tmp_path / "log"
    with killing(2, (0.3, 1)) as killed:
        done = cluster.results(llama, made_by(log, 0.3), iter(items(12)), told.append)
        found = {item.number: made for item, made in done}
    assert killed
    assert found == {number: number**2 for number in range(12)}
    assert sum(told) == 12
    begun = Counter(map(int, log.read_text().split()))
    assert sum(begun.values()) <= 12 + len(killed), "only items in flight are done again"


@pytest.mark.skipif(not MANY, reason="CLAS_LENS_KILLS=1: fourteen kills of workers, six of the driver; minutes")
def test_a_study_survives_many_dead_workers(cluster, study_file, expected, tmp_path):
    config = cl.study.load_study(study_file)
    killed, stops, runs = [], [], 0
    while len(killed) < 14:
        folder = tmp_path / f"run-{runs}"
        with killing(14 - len(killed), (4, 12)) as now:
            try:
                order.run_study(config, folder, run.silent, progress=False, cluster=cluster)
            except ClusterError as error:  # three kills in a row at one item: the next command goes on
                stops.append(str(error))
            else:
                assert_equal(contents(folder), expected)
                runs += 1
        killed += now
        print(f"{len(killed)} workers killed, {runs} studies the same, {len(stops)} stopped on the way")
    assert runs
    assert all("failed 3 times, the last time with the death of its worker" in stop for stop in stops)


@pytest.mark.parametrize(
    ("how", "why"), [("raises", "ValueError: poisoned"), ("dies", "the death of its worker")], ids=["raises", "dies"]
)
def test_an_item_that_fails_three_times_ends_it_and_the_rest_is_kept(cluster, llama, tmp_path, how, why):
    log, found = tmp_path / "log", []
    work = made_by(log, failing=(1, how))
    with pytest.raises(ClusterError, match=f"^language 'de', chunk 1 failed 3 times, the last time with {why}"):
        for item, _ in cluster.results(llama, work, iter(items(50)), lambda n: None):
            found.append(item.number)
    begun = Counter(map(int, log.read_text().split()))
    assert begun[1] == 3
    assert sorted(found) == sorted(set(begun) - {1}), "all others that were begun are handed out"


def test_a_driver_that_dies_has_lost_nothing(cluster, address, study_file, expected, tmp_path):
    cluster.close()  # makes room for the workers of other drivers
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "clas_lens", "run", str(study_file), "--out", str(folder)]
    command += ["--ray", "--workers", "2", "--address", address]
    for kill in range(6 if MANY else 1):
        seen = files(folder)
        with started(command) as driver:
            more = random.randint(1, 8) if kill else 5
            wait_for(lambda seen=seen, more=more: len(files(folder).keys() - seen.keys()) >= more, driver)
            time.sleep(random.uniform(0, 0.3))
            driver.kill()
            driver.wait()
        now = files(folder)
        assert {path: now.get(path) for path in seen if is_kept(path)} == {p: t for p, t in seen.items() if is_kept(p)}
        print(f"driver killed at {len(now)} files")
    order.run_study(cl.study.load_study(study_file), folder, run.silent, progress=False)
    assert_equal(contents(folder), expected)


def files(folder):
    """Whole files and when they were written."""
    return {
        path: path.stat().st_mtime_ns for path in folder.rglob("*.*") if path.suffix in (".parquet", ".safetensors")
    }


def is_kept(path):
    """Statistics of a language; its rows, too, but their chunks go when all are there."""
    return path.parent.name == "statistics"


def test_ctrl_c_leaves_no_process_behind(folders, tmp_path):
    script = Path(__file__).with_name("interrupted.py")
    with started(
        [sys.executable, str(script), str(folders["llama"]), str(tmp_path / "run")], start_new_session=True
    ) as driver:
        wait_for(lambda: workers_of(driver.pid), driver)
        family = psutil.Process(driver.pid).children(recursive=True)
        assert len(family) > 4
        os.killpg(driver.pid, signal.SIGINT)  # as a terminal sends it
        _, errors = driver.communicate(timeout=60)
    assert driver.returncode == 130, errors
    assert errors.rstrip().endswith("stopped; the same command goes on from here")
    assert not psutil.wait_procs(family, timeout=20)[1]


@contextmanager
def started(command, **options):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **options)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(condition, process, seconds=240):
    """Until it holds; fails if the process ends before."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.05)
