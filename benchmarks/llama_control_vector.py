"""A control vector in llama.cpp, by the C interface (`llama.h`) of the library that xllamacpp brings: its server takes none.

The two structures of parameters, of which only defaults are needed, are passed as blocks larger than they are, which the
calling convention of Linux on x86-64 allows; so this is for a benchmark, not for the package.
"""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from clas_lens.export.control_vectors import read_directions


class _Parameters(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_char * 1024)]


class _Batch(ctypes.Structure):
    _fields_ = [("n_tokens", ctypes.c_int32), ("pointers", ctypes.c_void_p * 6)]


def _library() -> Any:
    import xllamacpp.xllamacpp as extension

    library = ctypes.CDLL(extension.__file__)
    library.llama_model_default_params.restype = _Parameters
    library.llama_context_default_params.restype = _Parameters
    library.llama_batch_get_one.restype = _Batch
    library.llama_get_logits_ith.restype = ctypes.POINTER(ctypes.c_float)
    for name in ("llama_model_load_from_file", "llama_init_from_model", "llama_get_memory", "llama_model_get_vocab"):
        getattr(library, name).restype = ctypes.c_void_p
    return library


def next_logits(
    model: Path, prompts: Sequence[Sequence[int]], vector: Path | None = None, *, scale: float = 1.0
) -> Float[Tensor, "prompt d_vocab"]:
    """Logits after each prompt, with `scale` times every direction of a control vector's file."""
    library = _library()
    library.llama_backend_init()
    loaded = ctypes.c_void_p(
        library.llama_model_load_from_file(str(model).encode(), library.llama_model_default_params())
    )
    context = ctypes.c_void_p(library.llama_init_from_model(loaded, library.llama_context_default_params()))
    n_vocab = library.llama_vocab_n_tokens(ctypes.c_void_p(library.llama_model_get_vocab(loaded)))
    if vector is not None:
        # As llama.cpp's own reader lays them out: what is added after block N (N from 1) stands at N - 1.
        directions = read_directions(vector)
        width, n_layers = library.llama_model_n_embd(loaded), library.llama_model_n_layer(loaded)
        table = np.zeros((n_layers - 1, width), dtype=np.float32)
        for layer, direction in directions.items():
            table[layer - 1] = scale * direction.numpy()
        pointer = table.ctypes.data_as(ctypes.c_void_p)
        code = library.llama_set_adapter_cvec(context, pointer, ctypes.c_size_t(table.size), width, 1, n_layers)
        if code:
            raise RuntimeError(f"llama_set_adapter_cvec gave {code}")
    rows = []
    for prompt in prompts:
        library.llama_memory_clear(ctypes.c_void_p(library.llama_get_memory(context)), True)
        tokens = (ctypes.c_int32 * len(prompt))(*prompt)
        if code := library.llama_decode(context, library.llama_batch_get_one(tokens, len(prompt))):
            raise RuntimeError(f"llama_decode gave {code}")
        rows.append(np.ctypeslib.as_array(library.llama_get_logits_ith(context, -1), shape=(n_vocab,)).copy())
    library.llama_free(context)
    library.llama_model_free(loaded)
    return torch.from_numpy(np.stack(rows))
