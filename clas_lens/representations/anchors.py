"""Which language could be the anchor: what its neurons are, how alike the others are to it, what steering then gains."""

from collections.abc import Mapping, Sequence

import pandas as pd
from torch.nn.functional import cosine_similarity

from clas_lens.categories.categorize import NeuronCategories, NeuronCategory
from clas_lens.given import given
from clas_lens.models.sites import check_layers
from clas_lens.representations.alignment import AlignmentError
from clas_lens.representations.sentences import Representations
from clas_lens.significance.compare import Comparison


def anchor_frame(
    cats: NeuronCategories,
    before: Representations,
    layers: Sequence[int],
    gains: Mapping[str, Comparison] | None = None,
) -> pd.DataFrame:
    """Every language that both have as a candidate anchor.

    Args:
        before: of the unsteered model.
        layers: the bridge layers.
        gains: comparisons by the anchor that they were made with, such as `compare(rows, "clas", anchor="de")` of rows of
            `dataclasses.replace(clas, anchor="de")`.

    Returns:
        One row a language: `language`; of the layers' neurons in percent `active` (active in it), `specific` (in it alone),
        `partial` (in it and some others), `shared` (in all); `cosine`, the mean over layers, other languages and parallel
        sentences of the cosine to its own; `gain` and its interval `ci_low`, `ci_high` in points, the mean over the other
        languages with this anchor; NaN where it was not tried.

    Raises:
        AlignmentError: steered representations, or none of a layer; no common language; a comparison with another anchor.
    """
    given(cats, NeuronCategories, "anchor_frame needs NeuronCategories", "categorize(statistics) makes them")
    given(before, Representations, "anchor_frame needs Representations", "collect_representations gives them")
    chosen = check_layers(layers, cats.n_layers, error=AlignmentError)
    missing = [layer for layer in chosen if layer not in before.layers]
    if before.intervention is not None or missing:
        raise AlignmentError(
            f"needs unsteered representations of layers {list(chosen)}; got layers {list(before.layers)}, intervention "
            f"{before.intervention!r}"
        )
    languages = [code for code in before.languages if code in cats.languages]
    if len(languages) < 2:
        raise AlignmentError(f"fewer than 2 languages in both: {', '.join(before.languages)} were read")
    wanted, how = "gains must be comparisons by anchor", '{"de": compare(rows, "clas", anchor="de")}'
    for anchor, comparison in given({} if gains is None else gains, Mapping, wanted, how, error=AlignmentError).items():
        given(comparison, Comparison, wanted, how, error=AlignmentError)
        if comparison.anchor != anchor:
            raise AlignmentError(f"the comparison given for the anchor {anchor!r} has the anchor {comparison.anchor!r}")
    return pd.DataFrame([_row(cats, before, chosen, languages, code, (gains or {}).get(code)) for code in languages])


def _row(
    cats: NeuronCategories,
    before: Representations,
    layers: Sequence[int],
    languages: Sequence[str],
    anchor: str,
    comparison: Comparison | None,
) -> dict[str, object]:
    active = cats.active[cats.languages.index(anchor)]
    parts = {
        "active": active,
        "specific": cats.specific_to(anchor),
        "partial": active & cats.mask(NeuronCategory.PARTIAL_SHARED),
        "shared": cats.mask(NeuronCategory.ALL_SHARED),
    }
    shares = {name: 100 * float(mask[list(layers)].double().mean()) for name, mask in parts.items()}
    places = [before.layers.index(layer) for layer in layers]
    others = [before.languages.index(code) for code in languages if code != anchor]
    own = before.values[before.languages.index(anchor)][:, places].double()
    cosine = float(cosine_similarity(before.values[others][:, :, places].double(), own, dim=-1).mean())
    gain, low, high = (float("nan"),) * 3 if comparison is None else comparison.targets
    return {"language": anchor, **shares, "cosine": cosine, "gain": gain, "ci_low": low, "ci_high": high}
