"""The check at the end of every export: does the exported thing answer as `steer` does, within a tolerance that is said?"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clas_lens.artifacts import write_text
from clas_lens.corpus.parallel import ParallelCorpus
from clas_lens.export.factors import ExportError
from clas_lens.given import given_each
from clas_lens.models.load import load_model
from clas_lens.models.loading import quiet_transformers
from clas_lens.representations.effects import kl_divergence
from clas_lens.steering.intervention import Intervention
from clas_lens.steering.steer import steer

PROBES, PROBE_TOKENS = 4, 24
# The most that an export may be away from `steer`, as a share of how far steering itself moves: for the largest logit
# difference, and for the KL divergence. Rounding decides it: factors are folded into weights that keep their own type.
TOLERANCES = {
    "F32": 0.001,
    "F16": 0.02,
    "BF16": 0.1,
    "quantised": 0.02,  # beside the dequantised weights: only the 16-bit block scales are rounded again
    "truncated": 0.5,  # a low-rank approximation says how good it is, and must at least go half of the way
}
NOISE_LOGITS, NOISE_NATS = 3e-4, 1e-6  # float32's own, between two programs

Logits = list[Float[Tensor, "pos d_vocab"]]
Probes = Sequence[Int[Tensor, "pos"]]


@dataclass(frozen=True)
class Parity:
    """How far an exported model is from `steer`, beside how far steering moves the model. Over probe texts in one language.

    Attributes:
        format: what was exported.
        precision: a key of `TOLERANCES`.
        largest_difference, largest_steering: in logits: exported from steered, steered from unsteered.
        kl, kl_steering: mean KL divergence in nats: of the exported from the steered, of the steered from the unsteered.
        same_top: share of positions with the same most probable token.
        tolerance: largest share of steering's own size that passes.
        tokens: positions compared.
        details: what else the format measures.
    """

    format: str
    language: str
    precision: str
    largest_difference: float
    largest_steering: float
    kl: float
    kl_steering: float
    same_top: float
    tolerance: float
    tokens: int
    details: dict[str, Any]

    @classmethod
    def of(
        cls,
        format: str,
        precision: str,
        reference: "Reference",
        exported: Logits,
        details: dict[str, Any] | None = None,
    ) -> "Parity":
        """Compare logits of the same probes."""
        pairs = list(zip(reference.base, reference.steered, exported, strict=True))
        n_tokens = sum(len(steered) for _, steered, _ in pairs)
        return cls(
            format=format,
            language=reference.language,
            precision=precision,
            largest_difference=max(float((steered - found).abs().max()) for _, steered, found in pairs),
            largest_steering=max(float((steered - base).abs().max()) for base, steered, _ in pairs),
            kl=sum(float(kl_divergence(steered, found).sum()) for _, steered, found in pairs) / n_tokens,
            kl_steering=sum(float(kl_divergence(base, steered).sum()) for base, steered, _ in pairs) / n_tokens,
            same_top=sum(int((steered.argmax(1) == found.argmax(1)).sum()) for _, steered, found in pairs) / n_tokens,
            tolerance=TOLERANCES[precision],
            tokens=n_tokens,
            details=details or {},
        )

    @property
    def passed(self) -> bool:
        """Whether the largest difference and the divergence are within tolerance. Numbers that are not finite never are."""
        return (
            self.largest_difference <= self.tolerance * self.largest_steering + NOISE_LOGITS
            and self.kl <= self.tolerance * self.kl_steering + NOISE_NATS
        )

    def __str__(self) -> str:
        more = "".join(f"; {name.replace('_', ' ')}: {value}" for name, value in self.details.items())
        return (
            f"{self.format} for {self.language!r}: from steer at most {self.largest_difference:.2g} in a logit and "
            f"{self.kl:.2g} nats (KL), same top token at {self.same_top:.0%} of {self.tokens} positions; steering itself moves "
            f"{self.largest_steering:.2g} and {self.kl_steering:.2g} nats. Tolerance for {self.precision}: "
            f"{self.tolerance:.1%} "
            f"of that{more}"
        )

    def record(self, folder: Path) -> None:
        """Write `parity.json` and print, or say why the export fails.

        Raises:
            ExportError: beyond the tolerance.
        """
        if not self.passed:
            raise ExportError(f"the export differs from steer beyond its tolerance and was removed. {self}")
        write_text(folder / "parity.json", json.dumps({**asdict(self), "passed": True}, indent=2) + "\n")
        print(self)


@dataclass(frozen=True)
class WeightParity:
    """The check of a quantised checkpoint, which is not run: its dequantised weights beside the old ones times the factors.

    Attributes:
        method: how it is quantised.
        matrices: how many quantised matrices were compared; those of steered layers that are not quantised are, too.
        largest_weight_error: as a share of the largest weight of a matrix.
    """

    format: str
    language: str
    method: str
    matrices: int
    largest_weight_error: float
    tolerance: float = 0.01  # scales of 16 bits are rounded again: by .0005 in float16, .004 in bfloat16
    compared: str = "dequantised weights; the model was not run"

    def __str__(self) -> str:
        return (
            f"{self.format} for {self.language!r}, quantised ({self.method}): {self.compared}. {self.matrices} quantised "
            "matrices, and what is not quantised in steered layers, are the old ones times the factors within "
            f"{self.largest_weight_error:.2g} of their largest weight (tolerance {self.tolerance:g})"
        )

    def record(self, folder: Path) -> None:
        """Write `parity.json` and print, or say why the export fails.

        Raises:
            ExportError: beyond the tolerance.
        """
        if not self.largest_weight_error <= self.tolerance:
            raise ExportError(f"the export differs from the factors beyond its tolerance and was removed. {self}")
        write_text(folder / "parity.json", json.dumps({**asdict(self), "passed": True}, indent=2) + "\n")
        print(self)


@dataclass(frozen=True)
class Reference:
    """What `steer` answers on probes, and what the unsteered model does. Logits are float32, on the CPU."""

    language: str
    probes: Probes
    base: Logits
    steered: Logits

    @classmethod
    def measure(
        cls, folder: Path, intervention: Intervention, language: str, texts: Sequence[str] | None = None
    ) -> "Reference":
        """Load the source in float32, ask, and let it go.

        Raises:
            SteeringError: the intervention was measured on another model.
        """
        model = load_model(str(folder), dtype=torch.float32)
        intervention.check(model)
        probes = probe_tokens(model.tokenizer, language, texts)
        base = logits_of(lambda tokens: model(tokens, attention_mask=torch.ones_like(tokens)), probes, model.cfg.device)
        with steer(model, intervention, language=language):
            steered = logits_of(
                lambda tokens: model(tokens, attention_mask=torch.ones_like(tokens)), probes, model.cfg.device
            )
        return cls(language, probes, base, steered)


def probe_tokens(tokenizer: Any, language: str, texts: Sequence[str] | None) -> Probes:
    """Token ids of the texts, or of some bundled sentences in this language (English where there are none); the first
    ones of each.
    """
    if texts is None:
        bundled = ParallelCorpus.bundled()
        chosen = bundled[language if language in bundled.languages else "en"]
        texts = chosen[:: max(1, len(chosen) // PROBES)][:PROBES]
    texts = given_each(texts, str, "texts must be a list of texts", "give [text] for one", error=ExportError)
    ids = [tokenizer(text)["input_ids"][:PROBE_TOKENS] for text in texts]
    probes = [torch.tensor(row) for row in ids if row]
    if not probes:
        raise ExportError("no probe texts: texts= is empty")
    return probes


def logits_of(ask: Callable[[Tensor], Tensor], probes: Probes, device: Any = "cpu") -> Logits:
    """Logits at every position of each probe."""
    with torch.inference_mode():
        return [ask(probe[None].to(device))[0].float().cpu() for probe in probes]


def plain_logits(model: Any, probes: Probes) -> Logits:
    """Those of a Hugging Face (or PEFT) model."""
    return logits_of(lambda tokens: model(input_ids=tokens, use_cache=False).logits, probes, model.device)


def plain_model(folder: Path) -> Any:
    """A folder as `transformers` alone loads it, float32."""
    from transformers import AutoModelForCausalLM

    with quiet_transformers():
        return AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", trust_remote_code=False
        ).eval()
