"""The transcribed tables against everything that the paper prints about them elsewhere."""

import pytest

from analysis.tables.paper import PAPER_MODELS, paper_model, paper_outputs, paper_summary, paper_table
from clas_lens.models.presets import PRESETS
from clas_lens.significance.compare import summarize_languages

LLAMA, QWEN = PAPER_MODELS
# Figure 7 orders the languages by gain: drawn from the paper's data, apart from its tables.
FIGURE_7 = {
    ("xnli", LLAMA): "ur zh hi el ar th fr de ru tr es bg sw vi",
    ("xnli", QWEN): "de es tr bg fr hi el ar ur th vi ru sw zh",
    ("xquad", LLAMA): "de es vi tr ar el ro ru hi zh th",
    ("xquad", QWEN): "ru ar zh es vi th ro de el tr hi",
}
SETTINGS = [(task, model) for task in ("xnli", "xquad") for model in PAPER_MODELS]


def summary_of(task, model, gain="clas_gain"):
    table = paper_table(task).query("model == @model").set_index("language")
    return summarize_languages(table["base"].to_dict(), (table["base"] + table[gain]).to_dict())


@pytest.mark.parametrize(
    ("task", "model", "baseline", "gain", "p"),
    [
        ("xnli", LLAMA, 43.10, 1.93, 0.0478),
        ("xnli", QWEN, 59.93, 0.45, 1.7e-6),
        ("xquad", LLAMA, 26.85, 0.94, 0.1061),
        ("xquad", QWEN, 32.73, 1.10, 0.3306),
    ],
)
def test_averages_gains_and_p(task, model, baseline, gain, p):
    summary = summary_of(task, model)
    assert summary.baseline == pytest.approx(baseline, abs=0.0051)  # 26.845 is printed 26.85
    assert summary.gain == pytest.approx(gain, abs=0.005)
    assert summary.p_t == pytest.approx(p, abs=5e-5 if p > 1e-3 else 5e-8)


@pytest.mark.parametrize(("task", "model"), SETTINGS)
@pytest.mark.parametrize("method", ["intmu", "clas"])
def test_the_printed_averages_and_sigmas(task, model, method):
    printed = paper_summary(task).set_index("model").loc[model]
    summary = summary_of(task, model, f"{method}_gain")
    assert summary.gain == pytest.approx(printed[f"{method}_gain"], abs=0.0051)  # -0.815 is printed -0.82
    assert summary.sigma_baseline == pytest.approx(printed["sigma_base"], abs=0.005)
    assert summary.sigma == pytest.approx(printed[f"sigma_{method}"], abs=0.005)


def test_english_is_left_out_of_sigma_and_the_test():
    table = paper_table("xnli").query("model == @LLAMA")
    with_english = table["base"].std(ddof=1)
    assert with_english == pytest.approx(3.78, abs=0.005)
    assert summary_of("xnli", LLAMA).sigma_baseline == pytest.approx(2.82, abs=0.005)


def test_the_abstracts_gains_are_relative_and_pooled():
    relative = {}
    for task in ("xnli", "xquad"):
        both = paper_table(task)
        relative[task] = 100 * both["clas_gain"].sum() / both["base"].sum()
    assert relative == pytest.approx({"xnli": 2.3, "xquad": 3.4}, abs=0.05)


def test_where_the_print_disagrees_with_itself():
    assert paper_summary("xquad").set_index("model").loc[LLAMA, "clas_p"] == "p = 0.10"
    assert round(summary_of("xquad", LLAMA).p_t, 2) == 0.11
    xnli, xquad = (paper_table(task).set_index(["model", "language"]) for task in ("xnli", "xquad"))
    assert xnli.loc[(QWEN, "en"), "clas_gain"] == 0.05
    llama = xquad.loc[LLAMA, "base"]
    assert (llama > llama["en"]).sum() == 8


def test_the_other_tests_over_languages():
    # Not in the paper: its one significant result on Llama does not survive the rank test.
    assert summary_of("xnli", LLAMA).p_wilcoxon == pytest.approx(0.0580, abs=5e-5)
    assert summary_of("xnli", QWEN).p_wilcoxon == summary_of("xnli", QWEN).p_sign_flip == 2 / 2**14


@pytest.mark.parametrize(("task", "model"), SETTINGS)
def test_gains_rank_as_in_figure_7(task, model):
    table = paper_table(task).query("model == @model and language != 'en'")
    assert " ".join(table.sort_values("clas_gain", ascending=False)["language"]) == FIGURE_7[task, model]


def test_shape_of_the_data():
    assert paper_table("xnli").shape == (30, 5)
    assert paper_table("xquad").shape == (24, 5)
    with pytest.raises(ValueError, match="no table of the task 'xcopa'; it has: xnli, xquad"):
        paper_table("xcopa")
    assert list(paper_outputs()) == ["question", "base", "clas"]
    assert {name: PRESETS[name].bridge_layers for name in PAPER_MODELS} == {
        LLAMA: (24, 25, 26, 27, 28, 29),
        QWEN: (24, 25),
    }


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("llama-3.1-8b", LLAMA),
        ("meta-llama/Llama-3.1-8B-Instruct", LLAMA),
        ("Qwen2.5-7B-Instruct", QWEN),
        ("Llama-3.1-8B", None),
        ("gemma-3-270m", None),
    ],
)
def test_whose_numbers_they_are(name, model):
    assert paper_model(name) == model
