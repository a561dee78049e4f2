"""How alike parallel sentences are inside the model, before and after steering, and what that has to do with the gain."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from clas_lens.given import given, given_flag, given_frame
from clas_lens.representations.sentences import Representations
from clas_lens.vocabulary import check_language

MIN_LANGUAGES = 4  # a line through fewer points, and through one fewer still, says nothing


class AlignmentError(ValueError):
    """Representations or gains that cannot be compared."""


def cosine_frame(
    before: Representations,
    after: Representations,
    anchor: str = "en",
    *,
    centred: bool = False,
    centroid: bool = False,
) -> pd.DataFrame:
    """Cosine of every language to the anchor, before and after steering, at every layer (the paper's Figures 2 and 8).

    The mean over examples of the cosine of parallel sentences, in the residual stream or, where the representations are of
    site "mlp_out", in what the MLPs add to it. The anchor is taken from `before` in both, as it is never
    steered; its own row would be 1 and is left out. The paper's number is the mean of this over the bridge layers.

    Args:
        centred: first subtract the mean of all unsteered sentences (every language counts the same), from both; it
            takes away the direction that all sentences share and that brings every cosine close to 1.
        centroid: instead the cosine of the two languages' mean representations.

    Returns:
        Tidy: language, layer, before, after (both in [-1, 1]), change (after - before).

    Raises:
        AlignmentError: representations of different models, languages, layers or examples; or no such anchor.
    """
    _check_both(before, after)
    given_flag("centred", centred, error=AlignmentError)
    given_flag("centroid", centroid, error=AlignmentError)
    rows = []
    for layer in before.layers:
        values, steered = layer_pair(before, after, layer, anchor)
        if centred:
            origin = values.mean((0, 1))
            values, steered = values - origin, steered - origin
        if centroid:
            values, steered = values.mean(1, keepdim=True), steered.mean(1, keepdim=True)
        target = values[before.languages.index(anchor)]
        first = cosine_similarity(values, target, dim=-1).mean(1)
        second = cosine_similarity(steered, target, dim=-1).mean(1)
        rows += [
            (code, layer, float(first[i]), float(second[i]), float(second[i] - first[i]))
            for i, code in enumerate(before.languages)
            if code != anchor
        ]
    return pd.DataFrame(rows, columns=["language", "layer", "before", "after", "change"])


def layer_pair(
    before: Representations, after: Representations, layer: int, anchor: str
) -> tuple[Float[Tensor, "lang example d_model"], Float[Tensor, "lang example d_model"]]:
    """One layer's representations without and with steering, in float64, with the unsteered anchor in both.

    Raises:
        AlignmentError: `before` is steered, the two are not of the same sentences, or there is no such layer or anchor.
    """
    _check_both(before, after)
    if before.intervention is not None:
        raise AlignmentError(f"the representations before steering were made with intervention {before.intervention!r}")
    for what in ("languages", "layers", "example_ids", "pool", "site", "model", "texts"):
        if getattr(before, what) != getattr(after, what):
            raise AlignmentError(
                f"different {what} before and after: {_short(getattr(before, what))} and {_short(getattr(after, what))}"
            )
    if not isinstance(anchor, str) or anchor not in before.languages:
        raise AlignmentError(f"no anchor {anchor!r} to compare with; available: {', '.join(before.languages)}")
    if getattr(layer, "ndim", 0) or isinstance(layer, bool) or layer not in before.layers:
        raise AlignmentError(f"no representations of layer {layer}; available: {', '.join(map(str, before.layers))}")
    place, row = before.layers.index(layer), before.languages.index(anchor)
    first, second = before.values[:, :, place].double(), after.values[:, :, place].double().clone()
    second[row] = first[row]
    return first, second


def _check_both(before: object, after: object) -> None:
    for one in (before, after):
        given(
            one,
            Representations,
            "before and after must be Representations",
            "collect_representations gives them",
            error=AlignmentError,
        )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def retrieval(x: Float[Tensor, "example d_model"], y: Float[Tensor, "example d_model"]) -> float:
    """Share of examples whose parallel pair is more alike than either is to any other sentence of the other language.

    The test of MEXA (Kargaran et al. 2024): cos(x_i, y_i) above every other entry of row and column i. In [0, 1]; about
    1 / (2n - 1) by chance, with n examples.
    """
    x, y = _pairs("retrieval", x, y)
    similarity = normalize(x, dim=-1) @ normalize(y, dim=-1).T
    own = similarity.diagonal().clone()
    similarity.fill_diagonal_(-torch.inf)
    best_other = torch.maximum(similarity.amax(0), similarity.amax(1))
    return float((own > best_other).double().mean())


def linear_cka(x: Float[Tensor, "example d_model"], y: Float[Tensor, "example d_model"]) -> float:
    """Linear centred kernel alignment (Kornblith et al. 2019): ||Y'X||^2 / (||X'X|| ||Y'Y||) of centred X and Y, in [0, 1].

    1 where one is a rotation, shift or uniform rescaling of the other. With fewer examples than dimensions it is high for
    unrelated representations too, so compare only values with the same number of examples. NaN if all rows are equal.
    """
    x, y = _pairs("linear_cka", x, y)
    x, y = x - x.mean(0), y - y.mean(0)
    gram_x, gram_y = x @ x.T, y @ y.T  # [example example]; ||Y'X||^2 = <XX', YY'>
    return float((gram_x * gram_y).sum() / (gram_x.norm() * gram_y.norm()))


def _pairs(what: str, x: object, y: object) -> tuple[Tensor, Tensor]:
    """Two tensors with a row an example, the same examples in both.

    Raises:
        AlignmentError: anything else; or numbers that are not finite, of which no comparison holds.
    """
    for one in (x, y):
        given(
            one,
            Tensor,
            f"{what} needs two tensors [example d_model]",
            "Representations.at gives them",
            error=AlignmentError,
        )
    assert isinstance(x, Tensor)
    assert isinstance(y, Tensor)
    if x.ndim != 2 or len(x) != len(y) or not (x.isfinite().all() and y.isfinite().all()):
        raise AlignmentError(
            f"{what} needs finite numbers of the same examples, [example d_model]; got {list(x.shape)} and {list(y.shape)}"
        )
    return x, y


@dataclass(frozen=True)
class GainFit:
    """A straight line through the languages: a measure, such as the change of alignment, against the gain.

    Both are divided by their largest magnitude.

    Attributes:
        slope, intercept: least squares, on the scaled axes (each in [-1, 1]).
        r, p: Pearson's correlation, and its two-sided p (of slope = 0).
        spearman: rank correlation.
        left_out: the slope without each language, by language.
        gain_scale, change_scale: what the gain and the measure were divided by, in the units of the frame.
    """

    slope: float
    intercept: float
    r: float
    p: float
    spearman: float
    left_out: Mapping[str, float]
    gain_scale: float
    change_scale: float

    @property
    def n(self) -> int:
        """Languages."""
        return len(self.left_out)

    @property
    def loo_low(self) -> float:
        """The smallest slope with one language left out."""
        return min(self.left_out.values())

    @property
    def loo_high(self) -> float:
        """The largest slope with one language left out."""
        return max(self.left_out.values())


def fit_gain_alignment(frame: pd.DataFrame, *, anchor: str = "en") -> GainFit:
    """Fit the paper's Figure 3: change of the cosine to the anchor (y) against the gain in the task's score (x).

    Arguments and errors are those of `fit_gain`, with the column `change`.
    """
    given_frame(frame, ("language", "gain", "change"), "fit_gain_alignment", "gains joined with changes of the cosine")
    return fit_gain(frame, "change", anchor=anchor)


def fit_gain(frame: pd.DataFrame, column: str, *, anchor: str = "en") -> GainFit:
    """Fit any measure of the languages (y) against the gain in the task's score (x).

    Args:
        frame: columns language, gain and `column`; one row a language. The anchor's row, if there, is not used: its gain is 0
            by construction.

    Raises:
        AlignmentError: fewer than four languages, one twice, a number that is not finite, or an axis without spread.
    """
    given(column, str, "fit_gain needs a column's name", "one of the frame's")
    check_language(anchor)
    given_frame(frame, ("language", "gain", column), "fit_gain", "gains joined with a measure")
    rows = frame[frame["language"] != anchor]
    languages = [str(code) for code in rows["language"]]
    if len(languages) < MIN_LANGUAGES or len(set(languages)) != len(languages):
        raise AlignmentError(
            f"a fit needs at least {MIN_LANGUAGES} languages beside {anchor!r}, one row each; "
            f"got {', '.join(languages) or 'none'}"
        )
    for name in ("gain", column):
        if not pd.api.types.is_numeric_dtype(rows[name]):
            raise AlignmentError(f"nothing to fit: {name} must be numbers, got {rows[name].tolist()}")
    axes = {name: rows[name].to_numpy(dtype=float) for name in ("gain", column)}
    for name, values in axes.items():
        if not np.isfinite(values).all() or np.ptp(values) == 0:
            raise AlignmentError(f"nothing to fit: {name} must be finite and not all equal, got {values.tolist()}")
    scales = {name: float(np.abs(values).max()) for name, values in axes.items()}
    x, y = axes["gain"] / scales["gain"], axes[column] / scales[column]
    line = stats.linregress(x, y)
    return GainFit(
        slope=float(line.slope),
        intercept=float(line.intercept),
        r=float(line.rvalue),
        p=float(line.pvalue),
        spearman=float(stats.spearmanr(x, y).statistic),
        left_out=_slopes_without(languages, x, y),
        gain_scale=scales["gain"],
        change_scale=scales[column],
    )


def _slopes_without(languages: Sequence[str], x: NDArray[np.float64], y: NDArray[np.float64]) -> dict[str, float]:
    """The slope without each language; a vertical line's is infinite."""
    slopes = {}
    for i, language in enumerate(languages):
        rest_x, rest_y = np.delete(x, i), np.delete(y, i)
        centred = rest_x - rest_x.mean()
        spread = float(centred @ centred)
        slopes[language] = float(centred @ rest_y) / spread if spread > 0 else float("nan")
    return slopes
