"""Tiny random models of the real architectures, saved as real folders, and a check that no test leaves a hook behind."""

import os
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

import clas_lens as cl

FAMILIES = ("llama", "qwen2", "gemma3")
BACKENDS = ("hooked", "bridge")
SHARED = Path(__file__).parents[2] / "shared"
VOCAB = 600
SHAPE = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.15,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def shared_data(*parts: str) -> Path:
    """A path under ../shared; elsewhere than in CI a test that wants it is skipped when it is missing."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{path} is missing in CI")
        pytest.skip(f"needs {path}")
    return path


def tiny_hf_model(family: str, *, rope_context: int = 64) -> torch.nn.Module:
    """A random model with every feature of its family that a conversion can get wrong."""
    torch.manual_seed(0)
    match family:
        case "llama":
            rope = {
                "rope_type": "llama3",
                "rope_theta": 500000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": rope_context,
            }
            model = LlamaForCausalLM(LlamaConfig(**SHAPE, rope_parameters=rope))
        case "qwen2":
            model = Qwen2ForCausalLM(Qwen2Config(**SHAPE))
        case "gemma3":
            config = Gemma3TextConfig(
                **SHAPE, head_dim=16, query_pre_attn_scalar=16, sliding_window=6, sliding_window_pattern=2
            )
            model = Gemma3ForCausalLM(config)
        case _:
            raise ValueError(family)
    with torch.no_grad():  # biases and norm weights start at constants; make them matter
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
                assert "bias" in name or "norm" in name
    return model.eval()


def tiny_tokenizer(bos: bool) -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on the bundled corpus: every text in it round-trips."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=["<pad>", "<bos>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    corpus = cl.ParallelCorpus.bundled()
    tokenizer.train_from_iterator((text for lang in corpus.languages for text in corpus[lang]), trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<bos> $A", special_tokens=[("<bos>", tokenizer.token_to_id("<bos>"))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        **({"bos_token": "<bos>"} if bos else {}),
    )


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny models gain nothing from a second thread, and wait for it where the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def on_the_cpu():
    """Tests mean the CPU and float32 where they name no device, also on a machine with a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clas_lens.models.default_device", lambda: "cpu")
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
    model = lens_models["llama", "hooked"]
    yield model
    assert_no_hooks(model)


@pytest.fixture
def tokens():
    """Two rows of twelve."""
    return torch.arange(3, 27).reshape(2, 12)


def logits(model, tokens):
    """All logits of a batch without padding."""
    with torch.no_grad():
        return model(tokens, attention_mask=torch.ones_like(tokens))


def assert_no_hooks(model) -> None:
    """No hook is left on any hook point, of ours or of torch's."""
    left = [n for n, p in model.hook_dict.items() if p.fwd_hooks or p.bwd_hooks or p._forward_hooks]
    assert not left, f"hooks left on {left}"


@pytest.fixture(scope="session")
def small_corpus() -> "cl.ParallelCorpus":
    """Four languages, a dozen texts of very different lengths."""
    return cl.ParallelCorpus.bundled(["en", "de", "zh", "ar"]).take(range(36, 60, 2))


@pytest.fixture(scope="session")
def small_stats(lens_models, small_corpus):
    return cl.collect_statistics(lens_models["llama", "hooked"], small_corpus, batch_size=4, progress=False)


@pytest.fixture(scope="session")
def small_cats(small_stats):
    return cl.categorize(small_stats)
