"""Studies as TOML: shipped ones, files refused when wrong, and what is written read again."""

import pytest

from clas_lens.study.config import SearchConfig, StudyConfig, TaskConfig
from clas_lens.study.toml import StudyError, load_study, shipped_studies, study_toml


def test_shipped_studies_are_studies():
    assert shipped_studies() == (
        "demo-study",
        "paper-llama-xnli",
        "paper-llama-xquad",
        "paper-qwen-xnli",
        "paper-qwen-xquad",
    )
    for name in shipped_studies():
        study = load_study(name)
        assert isinstance(study, StudyConfig)
        assert study.name == name
        if name.startswith("paper"):
            assert (study.steer.beta, study.steer.gamma, study.collect.limit, study.collect.corpus) == (
                0.4,
                0.2,
                100,
                "xquad",
            )
            assert study.tasks[0].tuning_limit == 200
            assert study.tasks[0].allow_overlap == name.endswith("xquad")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", "is not TOML"),
        ('name = "a"\n[[tasks]]\nlimt = 3', "tasks.0.limt: Extra inputs are not permitted"),
        ('name = "../a"\n[[tasks]]', "name: String should match pattern"),
        ('name = "a"\n[[tasks]]\n[[tasks]]', "each task once, got xnli, xnli"),
    ],
)
def test_wrong_study_files(tmp_path, text, message):
    path = tmp_path / "study.toml"
    path.write_text(text)
    with pytest.raises(StudyError, match=message):
        load_study(path)


def test_an_unknown_study():
    with pytest.raises(StudyError, match="no study 'nope': neither a file nor one of demo-study, paper-llama-xnli"):
        load_study("nope")


ODD = StudyConfig(
    name="odd",
    collect={"corpus": "files", "data": 'C:\\a "b"\t\x7f\x01\u2028é', "languages": ("en",), "limit": None},
    categorize={"threshold": 1e-7, "layers": (0, 2)},
    steer={"alpha": -2, "beta": 1e16},
    search=SearchConfig(alphas=(0.1,), fixed=("int-mu",), windows=True),
    tasks=(TaskConfig(tuning_limit=None, limit=3, allow_overlap=True), TaskConfig(task="xquad", style="chat")),
)


@pytest.mark.parametrize("study", [*map(load_study, shipped_studies()), ODD], ids=lambda study: study.name)
def test_a_study_comes_back_from_its_file(study, tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(study_toml(study.model_dump(mode="json")), encoding="utf-8")
    assert load_study(path) == study


def test_a_file_can_ask_to_tune_on_all_examples(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text('name = "a"\n[[tasks]]\ntuning_limit = "all"', encoding="utf-8")
    assert load_study(path).tasks[0].tuning_limit is None
