"""Measures of alignment and separation against hand-worked numbers, SciPy and scikit-learn."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from scipy.spatial.distance import cosine
from sklearn.metrics import silhouette_score

from clas_lens.representations.alignment import AlignmentError, cosine_frame, fit_gain_alignment, linear_cka, retrieval
from clas_lens.representations.maps import separation_frame, tsne_frame
from clas_lens.representations.sentences import Representations

LANGUAGES = ("ar", "de", "en")


def representations(values: torch.Tensor, intervention: str | None = None, **other) -> Representations:
    n_languages, n_examples, n_layers, _ = values.shape
    names = {
        "languages": LANGUAGES[-n_languages:],
        "layers": tuple(range(3, 3 + n_layers)),
        "example_ids": tuple(f"e{i}" for i in range(n_examples)),
        "model": {"name": "tiny"},
        **other,
    }
    return Representations(values.float(), intervention=intervention, **names)


def random_pair(n_examples: int = 20, n_layers: int = 2, width: int = 8) -> tuple[Representations, Representations]:
    """Unsteered and steered; the anchor (the last) differs too, which no measure may see."""
    generator = torch.Generator().manual_seed(0)
    before = torch.randn(3, n_examples, n_layers, width, generator=generator) + 1.0
    after = before + 0.3 * torch.randn(before.shape, generator=generator)
    return representations(before), representations(after, "steered")


# Two languages, two examples, one layer, two dimensions.
DE = torch.tensor([[[1.0, 0.0]], [[0.0, 2.0]]])
EN = torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]])
DE_AFTER = torch.tensor([[[0.0, 3.0]], [[0.0, 2.0]]])
PAIR = representations(torch.stack([DE, EN])), representations(torch.stack([DE_AFTER, 9 * EN]), "steered")


# --- cosine ---


def test_cosine_by_hand():
    (row,) = cosine_frame(*PAIR).to_dict("records")
    half = math.sqrt(0.5)
    assert (row["language"], row["layer"]) == ("de", 3)
    assert row["before"] == pytest.approx((1 + half) / 2)
    assert row["after"] == pytest.approx((0 + half) / 2)
    assert row["change"] == pytest.approx(-0.5)


def test_centroid_cosine_by_hand():
    (row,) = cosine_frame(*PAIR, centroid=True).to_dict("records")  # en (1, 1/2), de (1/2, 1), then (0, 5/2)
    assert row["before"] == pytest.approx(1.0 / 1.25)
    assert row["after"] == pytest.approx(0.5 / math.sqrt(1.25))


def test_centring_takes_away_one_common_vector():
    before, after = random_pair()
    shifted = [replace(part, values=part.values + 7.0) for part in (before, after)]
    expected = cosine_frame(before, after, centred=True)
    pd.testing.assert_frame_equal(cosine_frame(*shifted, centred=True), expected, atol=1e-5)
    first = before.values[:, :, 0].numpy()
    origin = first.reshape(-1, first.shape[-1]).mean(0)
    cosines = [1 - cosine(x - origin, y - origin) for x, y in zip(first[0], first[2], strict=True)]
    assert expected["before"].iloc[0] == pytest.approx(np.mean(cosines), abs=1e-6)


def test_the_anchor_is_unsteered_in_both_and_has_no_row():
    before, after = random_pair()
    other = replace(after, values=torch.cat([after.values[:2], torch.zeros_like(after.values[2:])]))
    frame = cosine_frame(before, after)
    assert sorted(set(frame["language"])) == ["ar", "de"]
    assert sorted(set(frame["layer"])) == [3, 4]
    pd.testing.assert_frame_equal(cosine_frame(before, other), frame)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"example_ids": tuple(f"x{i}" for i in range(20))}, "different example_ids"),
        ({"languages": ("de", "ar", "en")}, "different languages"),
        ({"pool": "last"}, "different pool"),
        ({"model": {"name": "other"}}, "different model"),
    ],
)
def test_representations_must_belong_together(change, message):
    before, after = random_pair()
    with pytest.raises(AlignmentError, match=message):
        cosine_frame(before, replace(after, **change))


def test_swapped_or_anchorless_representations_are_refused():
    before, after = random_pair()
    with pytest.raises(AlignmentError, match="before steering were made with intervention 'steered'"):
        cosine_frame(after, before)
    with pytest.raises(AlignmentError, match="no anchor 'fr' to compare with; available: ar, de, en"):
        cosine_frame(before, after, "fr")
    with pytest.raises(AlignmentError, match="no representations of layer 9; available: 3, 4"):
        separation_frame(before, after, 9)


# --- separation ---


def test_retrieval_by_hand():
    x = torch.eye(3, dtype=torch.float64)
    assert retrieval(x, x) == 1.0
    assert retrieval(x, x[[1, 0, 2]]) == pytest.approx(1 / 3)
    # Row 1 wins its row but not its column: y_1 is closer to x_0.
    y = torch.tensor([[1.0, 0.9, 0.0], [0.9, 0.8, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    similarity = torch.nn.functional.normalize(y, dim=1)
    assert similarity[1, 0] > similarity[1, 1]
    assert retrieval(x, y) == pytest.approx(1 / 3)
    assert retrieval(torch.ones(4, 2), torch.ones(4, 2)) == 0.0  # a tie is no retrieval


def test_cka_against_centred_gram_matrices():
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(12, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    centre = np.eye(12) - 1 / 12
    k, m = (centre @ (z.numpy() @ z.numpy().T) @ centre for z in (x, y))
    hsic = np.trace(k @ m) / math.sqrt(np.trace(k @ k) * np.trace(m @ m))
    assert linear_cka(x, y) == pytest.approx(hsic)
    rotation = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64)).Q
    assert linear_cka(x, 3 * x @ rotation + 1) == pytest.approx(1.0)


def test_separation_against_independent_oracles():
    before, after = random_pair()
    frame = separation_frame(before, after, 4, k=3).set_index(["measure", "language"])
    for when, of in (("before", before), ("after", after)):
        points = of.values[:, :, 1].double().clone()
        points[2] = before.values[2, :, 1].double()
        flat, labels = points.flatten(0, 1).numpy(), np.repeat(range(3), 20)
        assert frame.loc[("silhouette", "all"), when] == pytest.approx(silhouette_score(flat, labels, metric="cosine"))
        unit = flat / np.linalg.norm(flat, axis=1, keepdims=True)
        likeness = unit @ unit.T
        np.fill_diagonal(likeness, -2)
        pure = (labels[np.argsort(-likeness, axis=1)[:, :3]] == labels[:, None]).mean(1)
        assert frame.loc[("knn_purity", "all"), when] == pytest.approx(pure.mean())
        assert frame.loc[("knn_purity", "de"), when] == pytest.approx(pure[20:40].mean())
        both = [frame.loc[("retrieval", code), when] for code in ("ar", "de")]
        assert frame.loc[("retrieval", "all"), when] == pytest.approx(np.mean(both))
    assert ("cka", "en") not in frame.index
    assert frame.loc[("knn_purity", "all"), "chance"] == pytest.approx(19 / 59)
    assert frame.loc[("retrieval", "all"), "chance"] == pytest.approx(1 / 39)


def test_languages_apart_and_languages_alike():
    generator = torch.Generator().manual_seed(2)
    meaning = torch.randn(12, 16, generator=generator)
    language = 30 * torch.eye(16)[:3, None]
    apart = representations((meaning + language)[:, :, None])
    alike = representations(meaning.expand(3, -1, -1)[:, :, None].clone(), "steered")
    frame = separation_frame(apart, alike, 3, k=1).set_index(["measure", "language"])
    assert frame.loc[("silhouette", "all"), "before"] > 0.9
    assert frame.loc[("knn_purity", "all"), "before"] == 1.0
    assert frame.loc[("knn_purity", "de"), "after"] == 0.0  # the other moved language's copy, never its own language's
    assert frame.loc[("cka", "de"), "after"] == pytest.approx(1.0)


def test_too_few_examples_are_refused():
    before, after = random_pair(n_examples=5)
    with pytest.raises(AlignmentError, match="more than k examples of each .* 3 languages with 5 examples"):
        separation_frame(before, after, 3, k=5)


# --- the map ---


def test_maps_are_one_seeded_joint_fit():
    before, after = random_pair()
    first, again = (tsne_frame(before, after, 3, perplexity=8, seed=1) for _ in range(2))
    pd.testing.assert_frame_equal(first.points, again.points)
    assert first.points.groupby("when").size().to_dict() == {"before": 60, "after": 60}
    rows = {when: part.set_index(["language", "example"])[["x", "y"]] for when, part in first.points.groupby("when")}
    assert rows["before"].loc["en"].equals(rows["after"].loc["en"])
    assert not np.isclose(rows["before"].loc["de"], rows["after"].loc["de"]).any()
    assert 0.5 < first.trustworthiness["before"] <= 1
    assert (first.n_components, first.explained) == (8, pytest.approx(1.0))
    other = tsne_frame(before, after, 3, perplexity=8, seed=2, pca=3)
    assert other.n_components == 3
    assert other.explained < 1


def test_the_seed_decides_a_map_from_random_places_alone():
    before, after = random_pair()
    one, other = (tsne_frame(before, after, 3, perplexity=8, seed=seed).points for seed in (1, 2))
    pd.testing.assert_frame_equal(one, other)
    drawn = [tsne_frame(before, after, 3, perplexity=8, seed=seed, init="random") for seed in (1, 1, 2)]
    pd.testing.assert_frame_equal(drawn[0].points, drawn[1].points)
    assert not np.allclose(drawn[0].points["x"], drawn[2].points["x"])
    assert drawn[0].init == "random"


def test_a_map_keeps_clusters_and_their_names():
    generator = torch.Generator().manual_seed(3)
    centres = torch.tensor([[0.0] * 6, [50.0] * 6, [-50.0] * 6])
    values = (centres[:, None] + torch.randn(3, 15, 6, generator=generator))[:, :, None]
    placed = tsne_frame(representations(values), representations(values, "steered"), 3, perplexity=10).points
    centroids = placed.groupby("language")[["x", "y"]].mean()
    distances = np.hypot(*(placed[[axis]].to_numpy() - centroids[axis].to_numpy() for axis in "xy"))
    assert (centroids.index[distances.argmin(1)] == placed["language"]).all()


def test_a_perplexity_too_large_is_refused():
    before, after = random_pair()
    with pytest.raises(AlignmentError, match="below a third of the 100 points, got 40"):
        tsne_frame(before, after, 3, perplexity=40)


# --- the fit ---

POINTS = pd.DataFrame(
    {
        "language": ["en", "de", "ar", "hi", "ru", "zh"],
        "gain": [0.0, 4.0, -2.0, 1.0, 2.0, 3.0],
        "change": [0.0, -0.2, 0.05, -0.1, 0.0, -0.15],
    }
)


def test_fit_against_scipy_on_axes_scaled_by_hand():
    fit = fit_gain_alignment(POINTS)
    x, y = np.array([4, -2, 1, 2, 3]) / 4, np.array([-0.2, 0.05, -0.1, 0, -0.15]) / 0.2
    line = stats.linregress(x, y)
    assert (fit.slope, fit.intercept, fit.r, fit.p) == pytest.approx(
        (line.slope, line.intercept, line.rvalue, line.pvalue)
    )
    assert fit.spearman == pytest.approx(-0.9)  # ranks 5 1 2 3 4 against 1 5 3 4 2: d^2 sums to 38; 1 - 6 * 38 / 120
    assert (fit.gain_scale, fit.change_scale, fit.n) == (4.0, 0.2, 5)
    without = {
        code: np.polyfit(np.delete(x, i), np.delete(y, i), 1)[0] for i, code in enumerate(POINTS["language"][1:])
    }
    assert dict(fit.left_out) == pytest.approx(without)
    assert (fit.loo_low, fit.loo_high) == pytest.approx((min(without.values()), max(without.values())))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"language": ["en", "de", "ar", "hi", "ru", "ru"]}, "one row each; got de, ar, hi, ru, ru"),
        ({"gain": 1.0}, "gain must be finite and not all equal"),
        ({"change": float("nan")}, "change must be finite"),
    ],
)
def test_frames_without_a_line_are_refused(change, message):
    with pytest.raises(AlignmentError, match=message):
        fit_gain_alignment(POINTS.assign(**change))
    with pytest.raises(AlignmentError, match="at least 4 languages beside 'en'"):
        fit_gain_alignment(POINTS.head(4))
