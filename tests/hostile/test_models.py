"""Model folders and objects that are not what they say: refused by name, or loaded as Transformers reads them."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from tiny import BACKEND, BACKENDS, needs_hooked, tiny_hf_model, tiny_tokenizer
from transformers import BertConfig, BertForMaskedLM, LlamaForSequenceClassification, MixtralConfig, MixtralForCausalLM

import clas_lens as cl

UP = "model.layers.1.mlp.up_proj.weight"
TOKENS = torch.arange(3, 20)[None]


@pytest.fixture
def folder(folders, tmp_path):
    """A copy of the tiny Llama's folder, to damage."""
    return shutil.copytree(folders["llama"], tmp_path / "llama")


def is_right(model) -> bool:
    """Whether this is the tiny Llama."""
    with torch.no_grad():
        return torch.allclose(model(TOKENS), tiny_hf_model("llama")(TOKENS).logits, atol=3e-5)


def as_bin(folder, change=lambda tensors: tensors, shards=1):
    """The weights in torch's own format, as models had them before safetensors."""
    tensors = change(load_file(folder / "model.safetensors"))
    (folder / "model.safetensors").unlink()
    names = list(tensors)
    files = {}
    for part in range(shards):
        name = "pytorch_model.bin" if shards == 1 else f"pytorch_model-{part + 1:05d}-of-{shards:05d}.bin"
        torch.save({key: tensors[key] for key in names[part::shards]}, folder / name)
        files |= dict.fromkeys(names[part::shards], name)
    if shards > 1:
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    return folder


def cast(dtype):
    return lambda tensors: tensors | {UP: (100 * tensors[UP]).to(dtype)}


BINS = {
    "int8": (cast(torch.int8), "keeps model.layers.1.mlp.up_proj.weight as int8"),
    "uint8": (cast(torch.uint8), "as uint8: quantised weights"),
    "int32": (cast(torch.int32), "as int32"),
    "float8": (cast(torch.float8_e4m3fn), "as float8_e4m3fn"),
    "complex": (cast(torch.complex64), "as complex64"),
    "bool": (cast(torch.bool), "as bool"),
    "one missing": (lambda t: {n: one for n, one in t.items() if n != UP}, rf"1 missing \({UP}\)"),
    "one more": (lambda t: t | {"model.layers.0.mlp.extra.weight": torch.ones(3)}, "1 unexpected"),
    "a prefix": (lambda t: {f"module.{n}": one for n, one in t.items()}, "missing .* unexpected"),
    "nested": (lambda t: {"state_dict": t}, "missing"),
    "a shape": (lambda t: t | {UP: torch.ones(7, 7)}, "could not be loaded|mismatched"),
    "NaN": (lambda t: t | {UP: t[UP] * float("nan")}, "own logits are not numbers"),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("what", list(BINS))
def test_weights_in_torchs_format_that_are_none_are_refused(folder, what, backend):
    change, message = BINS[what]
    with pytest.raises(cl.ModelLoadError, match=message):
        cl.load_model(as_bin(folder, change), backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shards", [1, 3])
def test_weights_in_torchs_format_are_read(folder, backend, shards):
    assert is_right(cl.load_model(as_bin(folder, shards=shards), backend=backend))


@pytest.mark.parametrize(
    "spoil", [lambda b: b[:5000], lambda b: b"", lambda b: b"PK" + b[2:90], lambda b: b"no pickle"]
)
def test_damaged_files_in_torchs_format_are_refused(folder, spoil):
    file = as_bin(folder) / "pytorch_model.bin"
    file.write_bytes(spoil(file.read_bytes()))
    with pytest.raises(cl.ModelLoadError, match="truncated, damaged or no file of weights"):
        cl.load_model(folder)


def test_a_lost_shard_in_torchs_format_is_named(folder):
    lost = as_bin(folder, shards=3) / "pytorch_model-00002-of-00003.bin"
    lost.unlink()
    with pytest.raises(cl.ModelLoadError, match=lost.name):
        cl.load_model(folder)


GENERATION = {
    "{": "generation_config.json is not JSON",
    "": "generation_config.json is not JSON",
    "[]": "a JSON list",
    "null": "a JSON NoneType",
    '{"eos_token_id": "2"}': "eos_token_id = '2'",
    '{"eos_token_id": 2.5}': "eos_token_id = 2.5",
    '{"eos_token_id": [[2]]}': r"eos_token_id = \[\[2\]\]",
    '{"eos_token_id": [2, null]}': "eos_token_id",
    '{"eos_token_id": true}': "eos_token_id = True",
    '{"eos_token_id": {"a": 2}}': "eos_token_id",
}


@pytest.mark.parametrize("content", list(GENERATION))
def test_a_generation_config_that_would_be_left_out_is_refused(folder, content):
    (folder / "generation_config.json").write_text(content)
    with pytest.raises(cl.ModelLoadError, match=GENERATION[content]):
        cl.load_model(folder)


CONFIGS = [
    ({"vocab_size": 500}, "could not be loaded"),
    ({"vocab_size": 601}, "could not be loaded"),
    ({"hidden_size": 64}, "could not be loaded"),
    ({"intermediate_size": 40}, "could not be loaded"),
    ({"num_attention_heads": 3}, "could not be loaded"),
    ({"num_key_value_heads": 4}, "could not be loaded"),
    ({"num_hidden_layers": 6}, "9 missing"),
    ({"num_hidden_layers": "5"}, "at least one layer"),
    ({"num_hidden_layers": 5.0}, "at least one layer"),
    ({"num_hidden_layers": True}, "could not be loaded"),
    ({"model_type": "qwen2"}, "15 missing"),
    ({"model_type": "nope"}, "could not be loaded"),
    ({"hidden_act": "nope"}, "could not be loaded"),
    ({"rms_norm_eps": "x"}, "could not be loaded"),
    ({"rope_parameters": {"rope_type": "nope"}}, "could not be loaded"),
    ({"quantization_config": "int8"}, "is quantised"),
    ({"compression_config": {"quant_method": "compressed-tensors"}}, "is quantised"),
]


@pytest.mark.parametrize(("settings", "message"), CONFIGS, ids=[str(settings) for settings, _ in CONFIGS])
def test_configurations_of_other_models_are_refused(folder, settings, message):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    with pytest.raises(cl.ModelLoadError, match=message):
        cl.load_model(folder)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"\xff\xfe", b'{"model_type": 5}', b"{}"])
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_files_beside_the_weights_that_are_none_are_refused(folder, name, content):
    (folder / name).write_bytes(content)
    with pytest.raises(cl.ModelLoadError, match=r"is not JSON|not a model's configuration|could not be loaded"):
        cl.load_model(folder)


@needs_hooked
def test_a_context_shorter_than_the_check_is_refused(folder):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"max_position_embeddings": 4}))
    with pytest.raises(cl.ModelLoadError, match="max_position_embeddings = 4"):
        cl.load_model(folder)


def _saved(model, folder):
    model.save_pretrained(folder)
    tiny_tokenizer(bos=True).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("backend", BACKENDS)
def test_other_kinds_of_model_are_refused(tmp_path, backend):
    llama = tiny_hf_model("llama")
    shape = {"vocab_size": 600, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    kinds = {
        r"1 missing \(lm_head": llama.model,
        "1 unexpected": LlamaForSequenceClassification(llama.config),
        "cannot be checked against Transformers": BertForMaskedLM(BertConfig(**shape, num_attention_heads=4)),
    }
    for place, (message, model) in enumerate(kinds.items()):
        with pytest.raises(cl.ModelLoadError, match=message):
            cl.load_model(_saved(model, tmp_path / str(place)), backend=backend)


@needs_hooked
def test_hooks_of_ones_own_are_not_lost_without_a_word():
    model = tiny_hf_model("llama")
    with torch.no_grad():
        model(torch.tensor([[1, 2, 3]]), output_hidden_states=True)  # leaves hooks of Transformers
    cl.load_model(model, backend="hooked", tokenizer=tiny_tokenizer(bos=True))
    model.model.layers[1].register_forward_hook(lambda module, inputs, output: None)
    with pytest.raises(cl.ModelLoadError, match=r"has hooks of yours \(model\.layers\.1\)"):
        cl.load_model(model, backend="hooked", tokenizer=tiny_tokenizer(bos=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_patched_forward_is_refused(backend):
    model = tiny_hf_model("llama")
    mlp = model.model.layers[1].mlp
    plain = mlp.forward
    mlp.forward = lambda hidden: 2 * plain(hidden)
    with pytest.raises(cl.ModelLoadError, match="does not run its own down projection|does not compute what"):
        cl.load_model(model, backend=backend, tokenizer=tiny_tokenizer(bos=True))


def test_a_head_that_the_configuration_would_tie_stays_its_own(folder):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"tie_word_embeddings": True}))
    assert is_right(cl.load_model(folder, backend=BACKEND))


def test_what_is_said_of_experts_is_so(monkeypatch):
    """No hook point lies between an expert's projections: the day TransformerLens has one, experts can be measured."""
    torch.manual_seed(0)
    shape = {
        "vocab_size": 600,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_local_experts": 4,
    }
    model = MixtralForCausalLM(MixtralConfig(**shape, num_attention_heads=4, num_key_value_heads=2)).eval()
    with pytest.raises(
        cl.ModelLoadError, match=r"mixture of 4 experts a layer, whose neurons cannot be measured .* Needed is"
    ):
        cl.load_model(model, backend=BACKEND, tokenizer=tiny_tokenizer(bos=True))
    monkeypatch.setattr("clas_lens.models.soundness.refuse_experts", lambda model: None)
    monkeypatch.setattr("clas_lens.models.load.check_mlp_hooks", lambda model: None)
    bridge = cl.load_model(model, backend="bridge", tokenizer=tiny_tokenizer(bos=True), check=False)
    seen = []
    for name, point in bridge.hook_dict.items():
        if name.startswith("blocks.0.mlp."):
            point.add_hook(lambda value, hook: seen.extend(value if isinstance(value, tuple) else [value]))
    with torch.no_grad():
        bridge(TOKENS)
    assert seen
    assert not any(48 in one.shape for one in seen)  # an expert has 48 neurons
