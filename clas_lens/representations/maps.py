"""t-SNE maps of sentence representations, without and with steering in one space (the paper's Figure 4)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE, trustworthiness
from sklearn.metrics import silhouette_samples
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits
from torch import Tensor

from clas_lens.given import given_number, given_whole, given_word
from clas_lens.representations.alignment import AlignmentError, layer_pair, linear_cka, retrieval
from clas_lens.representations.sentences import Representations
from clas_lens.vocabulary import MapInit

WHEN = ("before", "after")


@dataclass(frozen=True, eq=False)
class SentenceMap:
    """Two maps in one space. Distances between clusters and cluster sizes in a t-SNE map mean little; see `separation`.

    Attributes:
        points: tidy: language, example (id), when ("before", "after"), x, y. The anchor's points, which steering does not
            change, were placed once and stand in both.
        trustworthiness: per `when`, how far neighbours on the map are neighbours in full dimension (Euclidean, `k` = 10 or
            as many as fit), 0 to 1.
        explained: share of the variance that the PCA kept, 0 to 1.
        layer, anchor, perplexity, n_components, init: what it was made with.
        seed: of the places that it started from, if they are random ("init"); else it played no part.
    """

    points: pd.DataFrame = field(repr=False)
    trustworthiness: Mapping[str, float]
    explained: float
    layer: int
    anchor: str
    perplexity: float | int
    seed: int
    n_components: int
    init: MapInit = "pca"


def tsne_frame(
    before: Representations,
    after: Representations,
    layer: int,
    *,
    anchor: str = "en",
    perplexity: float | int = 30.0,
    seed: int = 0,
    pca: int = 50,
    init: MapInit = "pca",
) -> SentenceMap:
    """Place all sentences, unsteered and steered, on one plane: PCA, then t-SNE, each fitted to both together.

    Args:
        layer: the paper takes the model's penultimate layer.
        perplexity: about how many neighbours each point minds; less than a third of the points.
        pca: components kept for t-SNE, or as many as there are.
        init: where points start: on the first two principal components ("pca"), so that data and perplexity alone decide the
            map, or at "random". Maps from several seeds show how much of one map is chance.
        seed: of a random start.

    Raises:
        AlignmentError: representations that do not belong together; or a perplexity too large for so few sentences.
    """
    seed, pca = given_whole("seed", seed, most=2**32 - 1), given_whole("pca", pca, least=2)
    perplexity = given_number("perplexity", perplexity, error=AlignmentError)
    given_word("init", init, get_args(MapInit), error=AlignmentError)
    first, second = layer_pair(before, after, layer, anchor)
    moved = [code for code in before.languages if code != anchor]
    rows = [before.languages.index(code) for code in moved]
    n = len(before.example_ids)
    points = np.concatenate([first.flatten(0, 1).numpy(), second[rows].flatten(0, 1).numpy()])
    if not 0 < perplexity < len(points) / 3:
        raise AlignmentError(
            f"perplexity must be above 0 and below a third of the {len(points)} points, got {perplexity:g}: "
            "take a smaller one, or more examples"
        )
    reduction = PCA(n_components=min(pca, *points.shape), svd_solver="full")
    reduced = reduction.fit_transform(points)
    with threadpool_limits(limits=1):  # sums in the order of another number of threads grow into another map
        # scikit-learn's own "pca" start draws on the seed for its solver, which would decide a map by rounding.
        start_at = (reduced[:, :2] / reduced[:, 0].std() * 1e-4).astype(np.float32) if init == "pca" else "random"
        tsne = TSNE(perplexity=perplexity, init=start_at, random_state=seed)
        placed = tsne.fit_transform(reduced).astype(np.float64)
    # Where each language's block of points begins, without and with steering.
    start = {("before", code): i * n for i, code in enumerate(before.languages)}
    start |= {("after", code): (len(before.languages) + i) * n for i, code in enumerate(moved)}
    start["after", anchor] = start["before", anchor]
    panels = {when: np.concatenate([start[when, c] + np.arange(n) for c in before.languages]) for when in WHEN}
    return SentenceMap(
        points=pd.concat([_panel(before, when, placed[panels[when]]) for when in WHEN], ignore_index=True),
        trustworthiness={when: _trust(points[panels[when]], placed[panels[when]]) for when in WHEN},
        explained=float(reduction.explained_variance_ratio_.sum()),
        layer=layer,
        anchor=anchor,
        perplexity=perplexity,
        seed=seed,
        n_components=reduction.n_components_,
        init=init,
    )


def _panel(of: Representations, when: str, placed: NDArray[np.float64]) -> pd.DataFrame:
    languages = np.repeat(of.languages, len(of.example_ids))
    examples = np.tile(of.example_ids, len(of.languages))
    return pd.DataFrame(
        {"language": languages, "example": examples, "when": when, "x": placed[:, 0], "y": placed[:, 1]}
    )


def _trust(points: NDArray[np.float64], placed: NDArray[np.float64]) -> float:
    k = min(10, (len(points) - 1) // 2)  # scikit-learn wants fewer than half of the points
    return float(trustworthiness(points, placed, n_neighbors=k))


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
    k = given_whole("k", k)
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
