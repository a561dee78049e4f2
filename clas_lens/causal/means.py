"""What units do on average, from statistics or measured on the questions themselves."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from clas_lens.causal.answers import Question
from clas_lens.causal.passes import padded
from clas_lens.corpus.tokens import forward_batches
from clas_lens.models.forward import run_layers
from clas_lens.models.room import in_parts_that_fit
from clas_lens.models.sites import HookFunction, LensModel, Site, device_of, hooked
from clas_lens.models.units import flat, n_units
from clas_lens.statistics.neurons import NeuronStatistics
from clas_lens.steering.intervention import check_neurons
from clas_lens.vocabulary import UnitSite


def unit_means(
    model: LensModel,
    questions: Mapping[str, Sequence[Question]],
    sites: Sequence[UnitSite],
    stats: NeuronStatistics | None,
    batch_size: int,
) -> dict[UnitSite, Float[Tensor, "_ _ _"]]:
    """The mean of each unit in each language: of the statistics where they are of that site, else over the content tokens of
    the questions.

    Raises:
        SteeringError: statistics of another model.
    """
    found: dict[UnitSite, Tensor] = {}
    if stats is not None:
        check_neurons(model, stats.model, n_layers=stats.n_layers, n_neurons=stats.n_neurons)
        found[stats.site] = stats.mean
    unmeasured = [site for site in sites if site not in found]
    if unmeasured:
        by_language = [_measure(model, asked, unmeasured, batch_size) for asked in questions.values()]
        found |= {site: torch.stack([of[site] for of in by_language]) for site in unmeasured}
    return found


def _measure(
    model: LensModel, questions: Sequence[Question], sites: Sequence[UnitSite], batch_size: int
) -> dict[UnitSite, Float[Tensor, "_ _"]]:
    layers, n_tokens = range(model.cfg.n_layers), 0

    def zeros() -> dict[UnitSite, Tensor]:
        return {site: torch.zeros(len(layers), n_units(model, site), dtype=torch.float64) for site in sites}

    def read(rows: Sequence[int]) -> tuple[dict[UnitSite, Tensor], int]:
        """The sums over these questions alone: a pass that the device has no memory for leaves nothing."""
        batch, own = padded(model, [questions[row] for row in rows]), zeros()

        def adding(site: UnitSite, layer: int) -> HookFunction:
            def hook(activation: Tensor, hook: object) -> None:
                kept = flat(activation)[batch.content_mask.to(activation.device)]
                own[site][layer] = kept.float().sum(0).double().cpu()

            return hook

        hooks = [(Site(site, layer).hook_name(model), adding(site, layer)) for site in sites for layer in layers]
        with hooked(model, hooks):
            run_layers(model, batch.tokens, batch.attention_mask)
        return own, int(batch.content_mask.sum())

    sums = zeros()
    for batch_rows in forward_batches([len(question.ids) for question in questions], batch_size, device_of(model)):
        for _, (own, n) in in_parts_that_fit(batch_rows, read, what="examples"):
            n_tokens += n
            for site, total in own.items():
                sums[site] += total
    return {site: (total / n_tokens).float() for site, total in sums.items()}
