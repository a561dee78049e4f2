"""How far the languages' sentences lie apart, measured in all dimensions of the residual stream."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy.typing import NDArray
from sklearn.metrics import silhouette_samples
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from clas_lens.alignment import AlignmentError, layer_pair, linear_cka, retrieval
from clas_lens.representations import Representations

MEASURES = ("silhouette", "knn_purity", "retrieval", "cka")


def separation_frame(
    before: Representations, after: Representations, layer: int, anchor: str = "en", k: int = 10
) -> pd.DataFrame:
    """What a map of the sentences at one layer should be read beside: four measures that no projection has touched.

    `silhouette` (cosine distance; -1 to 1, high where languages are clusters of their own) and `knn_purity` (share of a
    sentence's `k` nearest that are in its own language, cosine; 0 to 1) measure how far languages lie apart. `retrieval`
    (see `alignment.retrieval`) and `cka` (`alignment.linear_cka`) measure how well each agrees with the anchor, which is
    unsteered in both.

    Returns:
        Tidy: language, measure, before, after, chance (what languages mixed at random would give; NaN for cka). The
        language "all" is the mean over sentences for the first two measures, and over languages without the anchor for
        the last two, which the anchor itself has no row for.

    Raises:
        AlignmentError: representations that do not belong together; or too few examples or languages for the measures.
    """
    first, second = layer_pair(before, after, layer, anchor)
    n_languages, n_examples = first.shape[:2]
    if n_languages < 2 or not 1 <= k < n_examples:
        raise AlignmentError(
            f"separation with k={k} needs two languages and more than k examples of each (k at least 1); "
            f"got {n_languages} languages with {n_examples} examples"
        )
    chance = {
        "silhouette": 0.0,
        "knn_purity": (n_examples - 1) / (n_languages * n_examples - 1),
        "retrieval": 1 / (2 * n_examples - 1),
        "cka": float("nan"),
    }
    languages = before.languages
    here, there = _measures(first, languages, anchor, k), _measures(second, languages, anchor, k)
    rows = [
        (language, measure, here[measure, language], there[measure, language], chance[measure])
        for measure in MEASURES
        for language in ("all", *languages)
        if (measure, language) in here
    ]
    return pd.DataFrame(rows, columns=["language", "measure", "before", "after", "chance"])


def _measures(
    values: Float[Tensor, "lang example d_model"], languages: Sequence[str], anchor: str, k: int
) -> dict[tuple[str, str], float]:
    """Every measure of every language, and their means."""
    points = values.flatten(0, 1).numpy()
    labels = np.repeat(np.arange(len(languages)), values.shape[1])
    by_sentence = {
        "silhouette": silhouette_samples(points, labels, metric="cosine"),
        "knn_purity": neighbour_purity(points, labels, k),
    }
    target = values[languages.index(anchor)]
    others = [i for i, code in enumerate(languages) if code != anchor]
    by_language = {
        "retrieval": {i: retrieval(values[i], target) for i in others},
        "cka": {i: linear_cka(values[i], target) for i in others},
    }
    result = {}
    for measure, scores in by_sentence.items():
        result[measure, "all"] = float(scores.mean())
        result |= {(measure, code): float(scores[labels == i].mean()) for i, code in enumerate(languages)}
    for measure, by_code in by_language.items():
        result[measure, "all"] = float(np.mean(list(by_code.values())))
        result |= {(measure, languages[i]): score for i, score in by_code.items()}
    return result


def neighbour_purity(points: NDArray[np.float64], labels: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """For each point the share of its `k` nearest by cosine, itself not counted, that have its label."""
    nearest = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(points)
    return (labels[nearest.kneighbors(return_distance=False)] == labels[:, None]).mean(1)
