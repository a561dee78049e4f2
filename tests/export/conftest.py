"""Tiny models of every kind of MLP, as folders, and an intervention of random factors that fits any of them."""

import json
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from tiny import FAMILIES, SHAPE, VOCAB, tiny_hf_model, tiny_tokenizer
from transformers import GPT2Config, GPT2LMHeadModel, Phi3Config, Phi3ForCausalLM

import clas_lens as cl

KINDS = (*FAMILIES, "phi3", "gpt2")
WIDTH, LAYERS = SHAPE["intermediate_size"], (1, 3, 4)


def make_model(kind):
    """A random model; what starts at constants is made to matter."""
    torch.manual_seed(0)
    if kind == "phi3":
        model = Phi3ForCausalLM(Phi3Config(**SHAPE))
    elif kind == "gpt2":
        config = GPT2Config(
            vocab_size=VOCAB,
            n_embd=WIDTH // 4,  # TransformerLens takes the MLP to be four times as wide
            n_layer=5,
            n_head=4,
            n_positions=512,
            initializer_range=0.15,
            bos_token_id=1,
            eos_token_id=2,
        )
        config.n_ctx = 512  # TransformerLens asks for it; files from the Hub have it
        model = GPT2LMHeadModel(config)
    else:
        return tiny_hf_model(kind)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture(scope="session")
def sources(tmp_path_factory):
    """One folder a kind, with a tokenizer and a chat template."""
    made = {}

    def source(kind):
        if kind not in made:
            folder = tmp_path_factory.mktemp("sources") / f"tiny-{kind}"
            make_model(kind).save_pretrained(folder, max_shard_size="60KB")
            tokenizer = tiny_tokenizer(bos=True)
            tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
            tokenizer.save_pretrained(folder)
            made[kind] = folder
        return made[kind]

    return source


@pytest.fixture(scope="session")
def masks():
    """Random disjoint masks; at alpha -3 boosted neurons change sign (factor -0.2) and cut ones grow (1.6)."""
    drawn = torch.rand(5, WIDTH, generator=torch.Generator().manual_seed(1))
    return cl.RescaleMasks(drawn < 0.3, drawn > 0.7, LAYERS, alpha=-3.0)


@dataclass(frozen=True)
class PerNeuron:
    """An intervention of a user's own with `scale`: any factor on any neuron."""

    factor: dict = field(default_factory=dict)
    positions: str = "all"
    anchor: str = "en"
    alpha: float = 1.0
    source: dict = field(default_factory=dict)
    tuned_on: frozenset = frozenset()

    def scale(self, language):
        return self.factor

    def check(self, model):
        pass

    def edits(self, *arguments):
        from clas_lens.steering.edits import rescale_edits

        return rescale_edits(self.scale, tuple(self.factor), arguments[-1])

    def settings(self):
        return {"layers": list(self.factor)}

    def fingerprint(self):
        return "none"

    def save_pretrained(self, folder):
        raise NotImplementedError


@pytest.fixture
def any_factors():
    generator = torch.Generator().manual_seed(2)
    return PerNeuron({layer: torch.randn(WIDTH, generator=generator).double() for layer in (0, 2)})


@pytest.fixture
def probes():
    return torch.arange(3, 27).reshape(2, 12)


@pytest.fixture
def steered_logits(probes):
    """What `steer` answers on a source folder."""

    def of(folder, intervention, language="de"):
        model = cl.load_model(folder)
        with torch.no_grad(), cl.steer(model, intervention, language=language):
            return model(probes, attention_mask=torch.ones_like(probes))

    return of


@pytest.fixture
def gguf_model(tmp_path, monkeypatch, sources):
    """A function that writes the tiny Qwen2 as a GGUF some of whose weights have a type of your choice."""
    gguf = pytest.importorskip("gguf")
    monkeypatch.setenv("CLAS_LENS_CACHE", str(tmp_path / "cache"))

    def write(kind="F32", *, fused=False, part="up_proj"):
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(sources("qwen2"), dtype=torch.float32)
        file = tmp_path / f"tiny-{kind}.gguf"
        write_qwen2(gguf, file, model, kind, fused=fused, part=part)
        return file

    return write


def write_qwen2(gguf, file, model, kind, *, fused, part):
    config, tokenizer = model.config, tiny_tokenizer(bos=True)
    writer = gguf.GGUFWriter(str(file), "qwen2")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    vocabulary = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(vocabulary)
    writer.add_token_types([3 if token.startswith("<") and token.endswith(">") else 1 for token in vocabulary])
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) if isinstance(pair, list) else pair for pair in merges])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, config.num_hidden_layers)
    for name, weight in model.state_dict().items():
        stem, suffix = name.rsplit(".", 1)
        values = weight.contiguous().numpy()
        if part in name:
            values = np.concatenate([values, values]) if fused else values
            dtype = gguf.GGMLQuantizationType[kind]
            writer.add_tensor(f"{names.get_name(stem)}.{suffix}", gguf.quants.quantize(values, dtype), raw_dtype=dtype)
        else:
            writer.add_tensor(f"{names.get_name(stem)}.{suffix}", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
