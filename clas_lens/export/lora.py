"""A PEFT LoRA: for servers (vLLM) that take a LoRA with each request and know no IA3."""

from collections.abc import Sequence
from pathlib import Path

from clas_lens.export.adapter import (
    adapter_parity,
    adapter_reference,
    import_peft,
    is_conv1d,
    output_projections,
    output_weight,
    write_adapter,
)
from clas_lens.export.cards import write_card
from clas_lens.export.factors import ExportError, factors, site_of_factors
from clas_lens.export.low_rank import low_rank, padded
from clas_lens.export.output import new_folder
from clas_lens.export.sources import Source, opened
from clas_lens.given import given_whole
from clas_lens.steering.intervention import Intervention

# Of a layer's change, in Frobenius norms; where more is left out, it is another intervention.
LARGEST_TRUNCATION = 0.5
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # vLLM's, from 8; it takes one rank for all layers


def lora(
    intervention: Intervention,
    *,
    language: str,
    source: Source | None = None,
    out: str | Path,
    max_rank: int = 512,
    texts: Sequence[str] | None = None,
) -> Path:
    """Write a LoRA on the down projections, W_down diag(s - 1); or on attention's output projections.

    Exact where a layer has at most `max_rank` steered neurons, or the residual stream is no wider; otherwise the
    truncated singular value decomposition, whose error `parity.json` and the card say: at most half of a layer's change may be
    left out, and the answers must go at least half of the way. For vLLM start the server with
    `--max-lora-rank` of at least the adapter's `r`.

    Raises:
        ExportError: see `adapter`; a `max_rank` below 8; or a truncation beyond these bounds.
    """
    max_rank = given_whole("max_rank", max_rank, least=RANKS[0], error=ExportError)
    scale = factors(intervention, language)
    peft = import_peft()
    with opened(source, intervention) as found, new_folder(out) as scratch:
        reference, base = adapter_reference(found, intervention, language, texts)
        places = output_projections(base, scale, site_of_factors(intervention))
        pairs = {layer: low_rank(output_weight(base, places[layer]), scale[layer], max_rank) for layer in places}
        error = max(pair.error for pair in pairs.values())
        if error > LARGEST_TRUNCATION:
            raise ExportError(
                f"rank {max_rank} leaves out {error:.0%} of the change of a layer, and at most {LARGEST_TRUNCATION:.0%} is "
                "allowed: too many neurons are steered. Raise max_rank, or export to peft, checkpoint or gguf"
            )
        wanted = max(len(pair.a) for pair in pairs.values())
        rank = next((rank for rank in RANKS if rank >= wanted), wanted)
        config = peft.LoraConfig(
            task_type="CAUSAL_LM",
            r=rank,
            lora_alpha=rank,
            target_modules=list(places.values()),
            fan_in_fan_out=is_conv1d(base, next(iter(places.values()))),
            base_model_name_or_path=found.name,
            inference_mode=True,
        )
        tensors = {}
        for layer, pair in pairs.items():
            whole = padded(pair, rank)
            tensors[f"base_model.model.{places[layer]}.lora_A.weight"] = whole.a.float()
            tensors[f"base_model.model.{places[layer]}.lora_B.weight"] = whole.b.float()
        folder = scratch / "lora"
        write_adapter(folder, config, tensors)
        details = {"rank": rank, "largest_truncation_error": round(error, 6)}
        parity = adapter_parity(peft, base, folder, "lora", "truncated" if error else "F32", reference, **details)
        for file in folder.iterdir():
            file.rename(scratch / file.name)
        folder.rmdir()
        parity.record(scratch)
        write_card(scratch, intervention, [language], found.name, "lora", [parity])
    return Path(out)
