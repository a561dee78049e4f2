"""Loaded models against the Hugging Face forward: logits, activations, padding, caching, memory, errors."""

import subprocess
import sys

import pytest
import torch
from tiny import BACKEND, BACKENDS, FAMILIES, assert_no_hooks, needs_hooked, tiny_hf_model, tiny_tokenizer
from transformer_lens.model_bridge import TransformerBridge
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig

import clas_lens as cl
from clas_lens.corpus.tokens import pad, tokenize
from clas_lens.models.sites import post_name

pytestmark = pytest.mark.bridge  # also run with TransformerLens 4

TEXTS = ["Lake Baikal is deep.", "Tee wird aus den Blättern eines Strauchs gemacht, der in Ostasien wuchs.", "茶"]


def left_padded(model):
    texts = tokenize(model.tokenizer, TEXTS)
    return pad(texts.ids, range(len(TEXTS)), n_prefix=texts.n_prefix)


def down_proj_inputs(hf_model, batch):
    """What HF feeds its down projections: the definition of h."""
    seen = {}
    handles = [
        layer.mlp.down_proj.register_forward_pre_hook(lambda _, args, i=i: seen.__setitem__(i, args[0]))
        for i, layer in enumerate(hf_model.model.layers)
    ]
    with torch.no_grad():
        logits = hf_model(batch.tokens, attention_mask=batch.attention_mask).logits
    for handle in handles:
        handle.remove()
    return logits, seen


@pytest.mark.parametrize("batched", [True, False], ids=["left-padded", "single"])
def test_logits_and_hook_post_equal_hugging_face(each_model, hf_models, request, batched):
    family = request.node.callspec.params["each_model"][0]
    batch = left_padded(each_model)
    if not batched:
        ids = tokenize(each_model.tokenizer, TEXTS).ids
        batch = pad(ids, [1])
    reference, expected = down_proj_inputs(hf_models[family], batch)
    seen = {}
    hooks = [
        (post_name(i), lambda h, hook, i=i: seen.__setitem__(i, h.clone())) for i in range(each_model.cfg.n_layers)
    ]
    with torch.no_grad():
        logits = each_model.run_with_hooks(batch.tokens, attention_mask=batch.attention_mask, fwd_hooks=hooks)
    real = batch.attention_mask.bool()
    torch.testing.assert_close(logits[real], reference[real], atol=3e-5, rtol=1e-4)
    for layer, h in expected.items():
        torch.testing.assert_close(seen[layer][real], h[real], atol=3e-5, rtol=1e-4)


@pytest.mark.parametrize("use_cache", [True, False], ids=["cached", "uncached"])
def test_greedy_generation_equals_hugging_face(each_model, hf_models, request, use_cache):
    family = request.node.callspec.params["each_model"][0]
    tokens = torch.tensor([tokenize(each_model.tokenizer, TEXTS).ids[1]])
    expected = hf_models[family].generate(
        tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=12, do_sample=False, pad_token_id=0
    )
    got = each_model.generate(
        tokens,
        max_new_tokens=12,
        do_sample=False,
        use_past_kv_cache=use_cache,
        stop_at_eos=True,
        eos_token_id=2,
        verbose=False,
    )
    n = min(got.shape[1], expected.shape[1])
    assert torch.equal(got[:, :n], expected[:, :n])


def test_loaded_models_are_ready_for_inference(each_model):
    assert not each_model.training
    assert not any(parameter.requires_grad for parameter in each_model.parameters())
    assert each_model.tokenizer.padding_side == "left"
    assert next(iter(each_model.parameters())).dtype == torch.float32


def test_dtype_and_backend_are_chosen(folders):
    model = cl.load_model(folders["llama"], dtype=torch.bfloat16)
    assert model.W_U.dtype == torch.bfloat16
    assert isinstance(model, TransformerBridge) is (BACKEND == "bridge")


@pytest.mark.parametrize("backend", BACKENDS)
def test_model_objects_are_taken_as_they_are(folders, backend):
    model = cl.load_model(folders["qwen2"], backend=backend)
    assert cl.load_model(model) is model


@pytest.mark.parametrize("backend", BACKENDS)
def test_hugging_face_objects(backend):
    hf_model = tiny_hf_model("gemma3")
    tokens = torch.arange(3, 30)[None]
    with torch.no_grad():
        expected = hf_model(tokens).logits
    model = cl.load_model(hf_model, backend=backend, tokenizer=tiny_tokenizer(bos=True))
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), expected, atol=3e-5, rtol=1e-4)
    assert_no_hooks(model)


def test_a_hugging_face_object_keeps_its_dtype_and_gradients():
    hf_model = tiny_hf_model("llama")
    model = cl.load_model(hf_model, dtype=torch.bfloat16, tokenizer=tiny_tokenizer(bos=True))
    assert model.W_U.dtype == torch.bfloat16
    assert hf_model.dtype == torch.float32
    assert all(parameter.requires_grad for parameter in hf_model.parameters())


@needs_hooked  # the bridge runs the model's own rotary tables, which .bfloat16() has rounded
@pytest.mark.parametrize("family", FAMILIES)
def test_upcasting_is_exact(family):
    """A bfloat16 model asked for in float32 equals Hugging Face's own upcast, rotary tables included."""
    hf_model = tiny_hf_model(family).bfloat16()
    tokens = torch.arange(3, 60)[None]
    tokenizer = tiny_tokenizer(bos=True)
    ours = cl.load_model(hf_model, dtype=torch.float32, tokenizer=tokenizer)
    lens = cl.load_model(cl.load_model(hf_model, tokenizer=tokenizer), dtype=torch.float32)
    assert hf_model.dtype == torch.bfloat16
    with torch.no_grad():
        expected = tiny_hf_model(family).bfloat16().float()
        # Rebuilt from its config: .float() cannot widen the frequencies that .bfloat16() rounded.
        reference = type(expected)(expected.config).eval()
        reference.load_state_dict(expected.state_dict())
        torch.testing.assert_close(ours(tokens), reference(tokens).logits, atol=3e-5, rtol=1e-4)
        if family != "gemma3":  # its embedding is scaled in the dtype that it was loaded in
            torch.testing.assert_close(lens(tokens), reference(tokens).logits, atol=3e-5, rtol=1e-4)


def test_mixtures_of_experts_are_refused_on_both_backends(tmp_path):
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        vocab_size=600,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=2,
        max_position_embeddings=64,
    )
    MixtralForCausalLM(config).save_pretrained(tmp_path / "moe")
    tiny_tokenizer(bos=True).save_pretrained(tmp_path / "moe")
    for backend in BACKENDS:
        with pytest.raises(cl.ModelLoadError, match="mixture of 2 experts a layer"):
            cl.load_model(tmp_path / "moe", backend=backend)


def test_what_is_no_model_is_refused():
    with pytest.raises(cl.ModelLoadError, match=r"got a Sequential\. Unwrap it first \(peft"):
        cl.load_model(torch.nn.Sequential())
    with pytest.raises(cl.ModelLoadError, match="comes with its tokenizer"):
        cl.load_model("gemma-3-270m", tokenizer=tiny_tokenizer(bos=True))


def test_bridge_of_an_object_without_tokenizer_says_so():
    with pytest.raises(cl.ModelLoadError, match=r"load_model\(hf_model, tokenizer="):
        cl.load_model(tiny_hf_model("llama"), backend="bridge")


@pytest.mark.parametrize("backend", BACKENDS)
def test_other_architectures_through_transformer_lens(tmp_path, backend):
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=600, n_positions=64, n_embd=32, n_layer=3, n_head=4, initializer_range=0.2, n_ctx=64)
    hf_model = GPT2LMHeadModel(config).eval()
    hf_model.save_pretrained(tmp_path / "gpt-two")
    tiny_tokenizer(bos=True).save_pretrained(tmp_path / "gpt-two")
    model = cl.load_model(tmp_path / "gpt-two", backend=backend)
    tokens = torch.arange(3, 30)[None]
    with torch.no_grad():
        got, expected = model(tokens), hf_model(tokens).logits
    torch.testing.assert_close(got, expected, atol=3e-5, rtol=1e-4)
    stats = cl.collect_statistics(
        model, cl.ParallelCorpus.bundled(["en", "de"]).take([2]), max_tokens=60, progress=False
    )
    assert stats.mean.shape == (2, 3, 128)


def test_loading_peaks_near_the_size_of_the_weights(tmp_path):
    """In a fresh process: the resident memory added by load_model stays under 1.2 times the weights."""
    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=1536,
        intermediate_size=6144,
        num_hidden_layers=5,
        num_attention_heads=12,
        num_key_value_heads=4,
    )
    torch.manual_seed(0)
    from transformers import LlamaForCausalLM

    with torch.no_grad():
        LlamaForCausalLM(config).save_pretrained(tmp_path / "wide")
    tiny_tokenizer(bos=True).save_pretrained(tmp_path / "wide")
    script = f"""
import threading, time, warnings
warnings.simplefilter("ignore")
import psutil, torch
import accelerate, transformer_lens
from clas_lens.models import load_model
process = psutil.Process()
# What matters is memory that cannot be given back: mapped file pages count for nothing.
def used():
    info = process.memory_info()
    return info.rss - info.shared
base, peak, done = used(), 0, False
def watch():
    global peak
    while not done:
        peak = max(peak, used())
        time.sleep(0.002)
thread = threading.Thread(target=watch)
thread.start()
model = load_model({str(tmp_path / "wide")!r}, dtype=torch.float32, device="cpu")
model(torch.arange(3, 12)[None])
done = True
thread.join()
weights = sum(p.numel() * p.element_size() for p in model.parameters())
print((peak - base) / weights, weights)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    ratio, weights = map(float, result.stdout.split()[-2:])
    assert weights > 500e6
    assert ratio < 1.2, f"loading took {ratio:.2f} times the weights"
