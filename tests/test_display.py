"""Cards in notebooks: key numbers, a picture, everything from data escaped, small whatever the object's size."""

import re
from base64 import b64decode
from dataclasses import replace
from xml.etree import ElementTree

import pandas as pd
import pytest
import torch

import clas_lens as cl
from clas_lens import display
from clas_lens.categories.categorize import NeuronCategories
from clas_lens.significance.card import RowsCard

BAD = "<script>alert('x')</script>&"


def parsed(html):
    """The card as XML: well formed, no elements but these, and its text."""
    root = ElementTree.fromstring(html)
    assert {element.tag for element in root.iter()} <= {"div", "strong", "table", "tr", "th", "td", "img", "span"}
    assert drawings(html)
    return " ".join("".join(root.itertext()).split())


def drawings(html):
    """The SVGs inside the card's images: notebooks that are not trusted keep those, and take SVG elements out."""
    starts = "data:image/svg+xml;base64,"
    found = []
    for image in ElementTree.fromstring(html).iter("img"):
        assert image.get("src").startswith(starts)
        drawn = ElementTree.fromstring(b64decode(image.get("src").removeprefix(starts)))
        for element in drawn.iter():
            element.tag = element.tag.removeprefix("{http://www.w3.org/2000/svg}")
        assert {element.tag for element in drawn.iter()} <= {"svg", "path", "rect"}
        assert "currentColor" not in "".join(str(element.attrib) for element in drawn.iter())
        found.append(drawn)
    return found


def drawn_heights(path, at):
    """Where a path of V and H commands is at some x, in percent of the picture's height."""
    y, x = None, 0.0
    for command, number in re.findall(r"([VH])([\d.]+)", path):
        if command == "V":
            y = float(number)
            continue
        if x <= at < float(number):
            return 100 * (1 - y / display.HEIGHT)
        x = float(number)


def test_statistics(small_stats):
    text = parsed(small_stats._repr_html_())
    assert "4: en de zh ar" in text
    assert "5 layers x 48" in text
    assert "12 examples of bundled, 48 samples" in text
    assert f"{100 * small_stats.firing_rate.double().mean():.1f}% over all" in text
    edge = drawings(small_stats._repr_html_())[0].findall(".//path")[1].get("d")
    for layer in range(5):
        expected = 100 * float(small_stats.firing_rate[:, layer].double().mean())
        assert drawn_heights(edge, (layer + 0.5) * display.WIDTH / 5) == pytest.approx(expected, abs=0.1)


def test_categories(small_cats):
    text = parsed(small_cats._repr_html_())
    for label, counts in small_cats.shares().groupby("category")["count"]:
        assert f"{label}{counts.sum():,} ({100 * counts.sum() / 240:.1f}%)" in text
    paths = drawings(small_cats._repr_html_())[0].findall(".//path")
    shares = small_cats.shares().pivot(index="layer", columns="category", values="percent")
    dead = next(path.get("d") for path in paths if path.get("fill") == display.CATEGORY_COLOURS["dead"])
    assert drawn_heights(dead, 10) == pytest.approx(shares["dead"][0], abs=0.1)
    assert small_cats.percent_by_layer()["dead"] == pytest.approx(shares["dead"].tolist())


def test_clas(small_cats):
    text = parsed(cl.Clas(small_cats, layers=(2, 3), alpha=-2.0)._repr_html_())
    labels = small_cats.labels[2:4]
    assert "layers2: 2 3" in text
    assert f"{int((labels == 2).sum())} neurons x 0.2" in text
    assert f"{int((labels == 1).sum())} neurons x 1.4" in text
    assert "en stays as it is" in text
    assert "steered" in text


def test_corpus():
    corpus = cl.ParallelCorpus.from_texts({"en": ["abcd", "ab"], "de": [f"{BAD}{'x' * 500}", "y"]}, name=BAD)
    html = corpus._repr_html_()
    text = parsed(html)
    assert "<script" not in html
    assert BAD in text
    assert "examples2, the same in every language" in text
    assert "en 3" in text  # the mean length in characters
    assert "x" * 100 not in text


def test_names_are_escaped(small_stats, small_cats):
    model = {**small_stats.model, "name": BAD}
    for shown in (
        replace(small_stats, model=model),
        replace(small_cats, model=model),
        cl.Clas(replace(small_cats, model=model), layers=(2,)),
    ):
        html = shown._repr_html_()
        assert "<script" not in html
        assert BAD in parsed(html)


def test_small_for_any_size():
    generator = torch.Generator().manual_seed(0)
    active = torch.rand(120, 126, 30, generator=generator) > 0.5
    languages = ("en", *(f"en-{i:03}" for i in range(1, 120)))
    cats = NeuronCategories(active, languages, model={"name": "m" * 5000})
    clas = cl.Clas(cats, layers=tuple(range(126)))
    texts = {code: ["x" * 100_000] for code in cl.ParallelCorpus.bundled().languages}
    for shown in (cats, clas, cl.ParallelCorpus.from_texts(texts, name="n" * 9000)):
        html = shown._repr_html_()
        parsed(html)
        assert len(html.encode()) < 20_000
    assert "and 96 more" in cats._repr_html_()


def test_evaluation_rows():
    rows = pd.DataFrame(
        {
            "task": "xnli",
            "language": ["de", "de", "zh", "zh"] * 2,
            "intervention": ["base"] * 4 + [BAD] * 4,
            "id": ["0", "1"] * 4,
            "correct": [True, False, True, True, True, True, True, True],
            "truncated": [False] * 7 + [True],
            "metric": "correct",
        }
    )
    shown = RowsCard(rows)
    assert shown.scores == {"base": 75.0, BAD: 100.0}
    text = parsed(shown._repr_html_())
    assert "8: 2 examples" in text
    assert "1 of 8 rows" in text
    assert "75.00" in text
    assert "<script" not in shown._repr_html_()
    assert repr(shown).startswith("RowsCard('xnli', 8 rows, correct in percent: base 75.00")
    with pytest.raises(ValueError, match="no column 'task' in the rows; there are: language"):
        RowsCard(rows.drop(columns="task"))
