"""Tiny random models, saved as folders and loaded; a check that no test leaves a hook behind; what parallel workers share."""

import gc
import os
from pathlib import Path

import pytest
import torch
from tiny import BACKEND, BACKENDS, FAMILIES, assert_no_hooks, tiny_hf_model, tiny_tokenizer
from transformers import AutoModelForCausalLM

import clas_lens as cl

if "PYTEST_XDIST_WORKER" in os.environ:
    # What a worker starts (kernels, studies to kill) shares the cores with the other workers.
    os.environ["OMP_NUM_THREADS"] = "1"


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With `--dist loadgroup` a worker takes a whole file, so that its fixtures are made once.

    Tests that name a group of their own (notebooks, which take longest) start first.
    """
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(str(item.path)))


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny models gain nothing from a second thread, and wait for it where the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def libraries_are_no_garbage():
    """What all imports have made is not looked through again by each collection of garbage, which takes half a second then."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def on_the_cpu():
    """Tests mean the CPU and float32 where they name no device, also on a machine with a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clas_lens.models.load.default_device", lambda: "cpu")
        yield


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One Hugging Face folder per family."""
    result = {}
    for family in FAMILIES:
        folder = tmp_path_factory.mktemp("models") / f"tiny-{family}"
        tiny_hf_model(family).save_pretrained(folder)
        tiny_tokenizer(bos=family != "qwen2").save_pretrained(folder)
        result[family] = folder
    return result


@pytest.fixture(scope="session")
def hf_models(folders: dict[str, Path]) -> dict[str, torch.nn.Module]:
    """The same weights as plain Hugging Face models: the oracle."""
    return {
        family: AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        for family, folder in folders.items()
    }


@pytest.fixture(scope="session")
def lens_models(folders: dict[str, Path]) -> dict[tuple[str, str], object]:
    return {
        (family, backend): cl.load_model(folder, backend=backend, device="cpu")
        for family, folder in folders.items()
        for backend in BACKENDS
    }


@pytest.fixture(params=[(f, b) for f in FAMILIES for b in BACKENDS], ids=lambda p: "-".join(p))
def each_model(request, lens_models):
    """Every family on every backend; fails a test that leaves a hook on the model."""
    model = lens_models[request.param]
    yield model
    assert_no_hooks(model)


@pytest.fixture(params=BACKENDS)
def model(request, lens_models):
    """The tiny Llama on both backends."""
    model = lens_models["llama", request.param]
    yield model
    assert_no_hooks(model)


@pytest.fixture
def llama(lens_models):
    """The tiny Llama as a HookedTransformer."""
    model = lens_models["llama", BACKEND]
    yield model
    assert_no_hooks(model)


@pytest.fixture
def tokens():
    """Two rows of twelve."""
    return torch.arange(3, 27).reshape(2, 12)


@pytest.fixture(scope="session")
def small_corpus() -> "cl.ParallelCorpus":
    """Four languages, a dozen texts of very different lengths."""
    return cl.ParallelCorpus.bundled(["en", "de", "zh", "ar"]).take(range(36, 60, 2))


@pytest.fixture(scope="session")
def small_stats(lens_models, small_corpus):
    return cl.collect_statistics(lens_models["llama", BACKEND], small_corpus, batch_size=4, progress=False)


@pytest.fixture(scope="session")
def small_cats(small_stats):
    return cl.categorize(small_stats)
