"""Checkpoints and objects that would load as another model: each refused by name, on both backends."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import BACKENDS, tiny_hf_model, tiny_tokenizer
from transformers import Gemma3ForConditionalGeneration, LlamaConfig, LlamaForCausalLM

import clas_lens as cl


@pytest.fixture
def folder(folders, tmp_path):
    """A copy of the tiny Llama's folder, to damage."""
    return shutil.copytree(folders["llama"], tmp_path / "llama")


def change_tensors(folder, change):
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def change_config(folder, **settings):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


def without(*names):
    return lambda tensors: {name: t for name, t in tensors.items() if not any(part in name for part in names)}


DAMAGES = {
    "a down_proj": (without("layers.3.mlp.down_proj"), r"1 missing \(model\.layers\.3\.mlp\.down_proj\.weight\)"),
    "a layer": (without("layers.4."), r"9 missing \(model\.layers\.4\."),
    "an untied head": (without("lm_head"), r"1 missing \(lm_head\.weight\)"),
    "a prefix": (lambda tensors: {f"language_model.{n}": t for n, t in tensors.items()}, r"missing .* unexpected"),
    "one more": (lambda tensors: tensors | {"model.layers.0.mlp.extra.weight": torch.ones(3)}, r"1 unexpected"),
    "a shape": (lambda t: t | {"model.norm.weight": torch.ones(7)}, r"could not be loaded|mismatched"),
    "int8": (lambda t: t | {"model.layers.1.mlp.up_proj.weight": torch.ones(48, 32, dtype=torch.int8)}, "as I8"),
    "NaN": (lambda t: t | {"lm_head.weight": t["lm_head.weight"] * float("nan")}, "own logits are not numbers"),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("what", list(DAMAGES))
def test_tensors_that_do_not_fit_are_named(folder, what, backend):
    change, message = DAMAGES[what]
    change_tensors(folder, change)
    with pytest.raises(cl.ModelLoadError, match=message):
        cl.load_model(folder, backend=backend)


CONFIGS = {
    "a layer fewer": ({"num_hidden_layers": 4}, "9 unexpected"),
    "no layer": ({"num_hidden_layers": 0}, "num_hidden_layers = 0; a model has at least one layer"),
    "minus one": ({"num_hidden_layers": -1}, "at least one layer"),
    "quantised": ({"quantization_config": {"quant_method": "gptq"}}, "is quantised .'gptq'."),
    "quantised somehow": ({"quantization_config": {"bits": 4}}, "is quantised .'unknown'."),
}


@pytest.mark.parametrize("what", list(CONFIGS))
def test_configurations_of_other_weights_are_named(folder, what):
    settings, message = CONFIGS[what]
    change_config(folder, **settings)
    with pytest.raises(cl.ModelLoadError, match=message):
        cl.load_model(folder)


def test_a_lost_shard_is_named(folder):
    model = LlamaForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="100KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    cl.load_model(folder)
    shards[-1].unlink()
    with pytest.raises(cl.ModelLoadError, match=f"could not be loaded.*{shards[-1].name}"):
        cl.load_model(folder)


def test_a_tied_head_may_be_absent(tmp_path):
    config = LlamaConfig(**TINY, tie_word_embeddings=True)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "tied")
    tiny_tokenizer(bos=True).save_pretrained(tmp_path / "tied")
    assert "lm_head.weight" not in load_file(tmp_path / "tied" / "model.safetensors")
    for backend in BACKENDS:
        assert cl.models.describe_model(cl.load_model(tmp_path / "tied", backend=backend))["checked"]


TINY = {
    "vocab_size": 600,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


def test_an_adapter_beside_the_weights_is_refused(folder):
    (folder / "adapter_config.json").write_text("{}")
    for backend in BACKENDS:
        with pytest.raises(cl.ModelLoadError, match=r"PEFT adapter.*merge_and_unload"):
            cl.load_model(folder, backend=backend)


class LoraLinear(torch.nn.Linear):
    """What peft puts into a model, by where it says that it comes from."""

    __module__ = "peft.tuners.lora.layer"


def test_an_adapter_inside_is_refused():
    hf_model = tiny_hf_model("llama")
    hf_model.model.layers[1].mlp.up_proj = LoraLinear(32, 48, bias=False)
    for backend in BACKENDS:
        with pytest.raises(
            cl.ModelLoadError, match=r"PEFT adapter inside \(model\.layers\.1\.mlp\.up_proj.*merge_and_unload"
        ):
            cl.load_model(hf_model, backend=backend, tokenizer=tiny_tokenizer(bos=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_that_are_elsewhere_are_refused(backend):
    hf_model = tiny_hf_model("llama")
    hf_model.model.layers[3].mlp.to("meta")
    with pytest.raises(cl.ModelLoadError, match=r"3 weights .* on 'meta', or offloaded \(model\.layers\.3\.mlp"):
        cl.load_model(hf_model, backend=backend, tokenizer=tiny_tokenizer(bos=True))


def test_a_tokenizer_larger_than_the_embedding_is_refused(folder):
    tokenizer = tiny_tokenizer(bos=True)
    tokenizer.add_tokens(["<x1>", "<x2>"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(cl.ModelLoadError, match=r"602 tokens.*600 rows: '<x1>' is token 600 \(2 beyond"):
        cl.load_model(folder)
    with pytest.raises(cl.ModelLoadError, match="'<x1>' is token 600"):
        cl.load_model(tiny_hf_model("llama"), tokenizer=tokenizer)


def test_a_far_larger_tokenizer_is_refused_at_once(folder):
    """Asking the tokenizer for its added tokens takes long where there are thousands: it is done once."""
    tokenizer = tiny_tokenizer(bos=True)
    tokenizer.add_tokens([f"<x{place}>" for place in range(3000)])
    asked = []
    kind = type(tokenizer)
    plain = kind.added_tokens_decoder
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "added_tokens_decoder", property(lambda self: asked.append(1) or plain.fget(self)))
        with pytest.raises(cl.ModelLoadError, match="3000 beyond"):
            cl.load_model(tiny_hf_model("llama"), tokenizer=tokenizer)
    assert len(asked) < 20


def test_an_image_token_without_a_row_is_no_fault(folder):
    tokenizer = tiny_tokenizer(bos=True)
    tokenizer.add_tokens(["<image_soft_token>"])
    tokenizer.save_pretrained(folder)
    cl.load_model(folder)


def test_image_text_models_name_the_bridge(tmp_path, monkeypatch):
    from transformers import Gemma3Config

    text = tiny_hf_model("gemma3").config.to_dict()
    vision = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "image_size": 28,
        "patch_size": 14,
    }
    torch.manual_seed(0)
    hf_model = Gemma3ForConditionalGeneration(
        Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=599)
    ).eval()
    hf_model.save_pretrained(tmp_path / "seeing")
    tiny_tokenizer(bos=True).save_pretrained(tmp_path / "seeing")
    if "hooked" in BACKENDS:
        with pytest.raises(cl.ModelLoadError, match=r"backend='bridge' loads this Gemma3ForConditionalGeneration"):
            cl.load_model(tmp_path / "seeing", backend="hooked")
    started = []
    monkeypatch.setattr("subprocess.check_call", lambda command, **options: started.append(command))
    model = cl.load_model(tmp_path / "seeing", backend="bridge")
    assert started == [], "nothing is installed"
    tokens = torch.arange(3, 20)[None]
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), hf_model(input_ids=tokens).logits, atol=3e-5, rtol=1e-4)
