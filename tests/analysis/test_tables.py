"""Tables carry the run's numbers and the paper's, say how to read them, and escape every name."""

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from analysis.tables.paper import paper_table
from analysis.tables.results import RESULT_COLUMNS, decision_table, results_table
from analysis.tables.views import decision_view, results_view
from clas_lens.significance.compare import compare

LANGUAGES = ("zh", "en", "de")


class Cells(HTMLParser):
    """The text of each table row's cells."""

    def __init__(self, html):
        super().__init__()
        self.rows, self.inside = [], False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.inside = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.rows[-1][-1] += data.strip()


def cells_of(view):
    """{first cell: the others}."""
    return {row[0]: row[1:] for row in Cells(view._repr_html_()).rows if row}


def notes_of(view):
    return "\n".join((view.subtitle, *view.notes))


@pytest.fixture
def xnli():
    """Thirty examples in ten premises; base: 10 right in zh, 20 in en and de; clas wins nine in zh, loses one in de."""
    right = {
        ("zh", "base"): 10, ("zh", "clas"): 19, ("en", "base"): 20, ("en", "clas"): 20, ("de", "base"): 20, ("de", "clas"): 19,
    }  # fmt: skip
    return pd.DataFrame(
        {
            "task": "xnli",
            "language": language,
            "intervention": intervention,
            "id": f"x{i}",
            "group": f"p{i // 3}",
            "gold": i % 3,
            "prediction": i % 3 if i < right[language, intervention] else (i + 1) % 3,
            "correct": i < right[language, intervention],
            **dict.fromkeys(("p_entailment", "p_neutral", "p_contradiction"), 1 / 3),
            "title": "XNLI",
            "metric": "correct",
            "metric_title": "accuracy",
            "label_mass": 0.25 if intervention == "base" else 0.75,
            "truncated": i < 3,
        }
        for language in LANGUAGES
        for intervention in ("base", "clas")
        for i in range(30)
    )


@pytest.fixture
def xquad():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "task": "xquad",
            "language": language,
            "intervention": intervention,
            "id": f"q{i}",
            "group": f"p{i // 2}",
            "gold": "gold",
            "prediction": "gold",
            "f1": rng.random(),
            "em": float(i == 0),
            "f1_segmented": 0.5,
            "n_new_tokens": i,
            "stopped": i % 4 > 0,
            "truncated": i < 2,
            "gold_lost": i < 1,
            "title": "XQuAD",
            "metric": "f1",
            "metric_title": "token F1",
        }
        for language in ("en", "th")
        for intervention in ("base", "clas")
        for i in range(20)
    )


# --- tidy tables ---


def test_results_carry_the_run_and_the_paper(xnli):
    comparison = compare(xnli, "clas", test="McNemar")
    table = results_table([comparison], model="meta-llama/Llama-3.1-8B-Instruct")
    assert list(table) == list(RESULT_COLUMNS)
    assert list(table["row"]) == [
        *(["language"] * 3),
        *("average", "without anchor", "sigma", "over examples", "paired t-test", "Wilcoxon", "sign-flip"),
    ]
    assert list(table["language"]) == ["de", "en", "zh", *(["all"] * 7)]
    rows = table.set_index(["row", "language"])
    german, chinese, average = (rows.loc[key] for key in (("language", "de"), ("language", "zh"), ("average", "all")))
    assert (german["n"], german["n_changed"], chinese["n_changed"]) == (30, 1, 9)
    assert chinese["gain"] == pytest.approx(30)
    assert chinese["p_holm"] == pytest.approx(2 * 2 / 2**9)
    assert (average["baseline"], average["gain"]) == pytest.approx((500 / 9, 80 / 9))
    assert rows.loc[("without anchor", "all"), "gain"] == pytest.approx(40 / 3)
    assert rows.loc[("sigma", "all"), "baseline"] == pytest.approx(np.std([100 / 3, 200 / 3], ddof=1))
    assert (
        rows.loc[("sign-flip", "all"), "p"] == 1.0
    )  # of gains -3.3 and 30: two of four sign choices reach 26.7, two more 33.3
    assert (chinese["paper_baseline"], chinese["paper_gain"], chinese["paper_score"]) == pytest.approx(
        (44.63, 5.89, 50.52)
    )
    assert (average["paper_baseline"], average["paper_gain"]) == (43.10, 1.93)
    assert rows.loc[("sigma", "all"), "paper_score"] == 3.19
    assert rows.loc[("paired t-test", "all"), "paper_p"] == "p < 0.05"


def test_the_papers_numbers_stand_beside_like_only(xnli, xquad):
    def has_paper(rows, name, model, **options):
        renamed = rows.replace({"intervention": {"clas": name}})
        table = results_table([compare(renamed, name, n_boot=50, **options)], model=model)
        return table["paper_baseline"].notna().any()

    assert has_paper(xnli, "clas", "qwen-2.5-7b")
    assert has_paper(xquad, "Int_mu", "qwen-2.5-7b")
    assert has_paper(xquad, "int-mu", "qwen-2.5-7b")
    assert not has_paper(xquad, "int-mu-clas", "qwen-2.5-7b")
    assert not has_paper(xnli, "clas", "gemma-3-270m")
    assert not has_paper(xnli, "clas", None)
    assert not has_paper(xnli, "diff mean", "qwen-2.5-7b")
    assert not has_paper(xquad, "clas", "qwen-2.5-7b", metric="f1_segmented")


def test_several_interventions_need_one_baseline(xnli):
    more = pd.concat([xnli, xnli[xnli["intervention"] == "clas"].assign(intervention="int_mu")])
    clas, int_mu = (compare(more, name, n_boot=50) for name in ("clas", "int_mu"))
    table = results_table([clas, int_mu])
    assert list(table["intervention"].unique()) == ["clas", "int_mu"]
    assert len(table) == 20
    half = more[more["group"] < "p5"]
    with pytest.raises(ValueError, match="'clas' and 'int_mu' were not compared with the same baseline scores"):
        results_table([clas, compare(half, "int_mu", n_boot=50)])
    with pytest.raises(ValueError, match="different names; got: clas, clas"):
        results_table([clas, clas])
    with pytest.raises(ValueError, match="no comparisons"):
        results_table([])


def test_decisions_by_hand(xnli):
    constant = xnli.assign(prediction=1, correct=xnli["gold"] == 1)
    row = decision_table(constant).set_index(["language", "intervention"]).loc[("de", "base")]
    assert row["accuracy"] == pytest.approx(100 / 3)
    assert row["macro_f1"] == pytest.approx(
        100 / 6
    )  # F1 of the constant label: precision 1/3, recall 1; of the others 0
    assert (row["predicted_entailment"], row["predicted_neutral"], row["predicted_contradiction"]) == (0, 100, 0)
    assert (row["label_mass"], row["truncated"], row["n"]) == (25, 10, 30)
    table = decision_table(xnli)
    assert list(zip(table["language"], table["intervention"], strict=True))[:3] == [
        ("de", "base"), ("de", "clas"), ("en", "base"),
    ]  # fmt: skip
    assert not table["overlap"].any()


def test_answers_by_hand(xquad):
    row = decision_table(xquad).set_index(["language", "intervention"]).loc[("th", "clas")]
    assert (row["em"], row["f1_segmented"], row["answer_tokens"]) == (5, 50, 9.5)
    assert (row["stopped"], row["truncated"], row["gold_lost"]) == (75, 10, 5)
    with pytest.raises(ValueError, match="rows of one task"):
        decision_table(pd.concat([xquad, xquad.assign(task="xnli")]))
    pd.testing.assert_frame_equal(decision_table(xquad.assign(task="mine")), decision_table(xquad))
    with pytest.raises(ValueError, match="do not say which column counts"):
        decision_table(xquad.drop(columns="metric"))


# --- views ---


def test_a_reader_finds_score_gain_interval_p_and_paper(xnli):
    comparison = compare(xnli, "clas", test="McNemar", interval="percentile", n_boot=100)
    view = results_view([comparison], model="llama-3.1-8b")
    rows = cells_of(view)
    chinese = comparison.languages.set_index("language").loc["zh"]
    interval = f"+{chinese['ci_low']:.2f} to +{chinese['ci_high']:.2f}"
    assert rows["zh"] == ["33.33", "44.63", "+30.00", interval, "0.008", "+5.89"]
    assert rows["en (anchor)"] == ["66.67", "52.63", "0.00", "0.00 to 0.00", "", "0.00"]
    assert rows["de"][2] == "−3.33"
    assert rows["average"][:3] == ["55.56", "43.10", "+8.89"]
    assert rows["p, paired t-test"][-1] == "p < 0.05"
    bold = re.findall(r"<td [^>]*><b>([^<]*)", view._repr_html_())
    assert bold == ["+30.00"]
    assert "paper" not in str(cells_of(results_view([comparison])))


def test_the_notes_say_how_to_read_it(xnli):
    notes = notes_of(
        results_view([compare(xnli, "clas", n_boot=100, confidence=0.9)], model="llama-3.1-8b", correction="bh")
    )
    assert "Student's t over the 10 groups" in notes
    assert "Only" not in notes
    few = xnli[~xnli["group"].isin(["p0", "p1"])]
    told = notes_of(results_view([compare(few, "clas")]))
    assert "Only 8 groups of examples: with fewer than 10 such intervals hold the truth less often" in told
    assert "It holds for these examples only" in notes
    assert "sign-flip test against base, two-sided, Benjamini-Hochberg-corrected over 2 languages without en" in notes
    assert "clas in en: no score changed" in notes
    assert "Table 1 of arXiv 2601.16390" in notes
    assert "over 15 languages" in notes
    assert "Tuned on" not in notes
    assert "90% interval" in str(cells_of(results_view([compare(xnli, "clas", n_boot=100, confidence=0.9)])))


def test_the_anchors_verdict(xquad):
    def verdict(margin):
        return notes_of(results_view([compare(xquad, "clas", n_boot=50, margin=margin)]))

    assert "clas in en: the change is not shown to lie within 1 percentage point (equivalence test, p = " in verdict(
        1.0
    )
    assert "clas in en: the change lies within 90 percentage points (equivalence test, p < 0.001)" in verdict(90.0)


def test_tuning_on_the_tested_examples_is_marked(xnli):
    tuned = xnli.assign(overlap=xnli["intervention"] == "clas")
    for view in (results_view([compare(tuned, "clas", n_boot=50)]), decision_view(tuned)):
        assert "* Tuned on some of these examples: its scores are optimistic." in notes_of(view)
        assert "clas *" in view._repr_html_()
        assert "base *" not in view._repr_html_()
    assert "Tuned" not in notes_of(decision_view(xnli))


def test_one_language_and_no_anchor(xnli):
    alone = xnli[xnli["language"] == "zh"]
    rows = cells_of(results_view([compare(alone, "clas", anchor=None, n_boot=50)]))
    assert rows["σ of scores"] == ["", "", "", ""]
    assert rows["p, paired t-test"] == ["", "", "", ""]
    assert rows["p, Wilcoxon"] == ["", "", "", "1.000"]
    assert not any(name.startswith("average without") for name in rows)


def test_decisions_are_laid_out_by_language(xnli, xquad):
    rows = [row for row in Cells(decision_view(xnli, model="m")._repr_html_()).rows if "clas" in row]
    assert rows[0] == ["de", "clas", "63.3", "63.3", "36.7", "30.0", "33.3", "75.0", "10.0"]
    assert "m, 30 examples in each row" in notes_of(decision_view(xnli, model="m"))
    unmeasured = Cells(decision_view(xnli.assign(label_mass=np.nan))._repr_html_()).rows
    assert [row[-2] for row in unmeasured if "clas" in row] == ["", "", ""]
    answers = [row for row in Cells(decision_view(xquad)._repr_html_()).rows if "clas" in row]
    assert answers[0][3:] == ["5.0", "50.0", "9.5", "75.0", "10.0", "5.0"]


@pytest.mark.parametrize("view", ["results", "decisions"])
def test_names_are_escaped(xnli, view):
    bad = "<img src=x onerror=alert(1)>"
    rows = xnli.replace({"intervention": {"clas": bad, "base": f"{bad} base"}})
    if view == "results":
        html = results_view([compare(rows, bad, baseline=f"{bad} base", n_boot=50)], model=bad)._repr_html_()
    else:
        html = decision_view(rows, model=bad)._repr_html_()
    assert "<img" not in html
    assert "&lt;img" in html


def test_the_papers_own_table_survives_the_join():
    languages = sorted(set(paper_table("xquad")["language"]))
    rows = pd.DataFrame(
        {
            "task": "xquad", "language": language, "intervention": intervention, "id": f"q{i}", "group": f"p{i}", "f1": 0.1 * i,
            "metric": "f1",
        }
        for language in languages for intervention in ("base", "int_mu") for i in range(3)
    )  # fmt: skip
    table = results_table([compare(rows, "int_mu", n_boot=50)], model="qwen-2.5-7b")
    joined = table[table["row"] == "language"].set_index("language")
    published = paper_table("xquad").query("model == 'qwen-2.5-7b'").set_index("language")
    assert joined["paper_gain"].to_dict() == published["intmu_gain"].to_dict()
    assert table["paper_p"].isna().all()
