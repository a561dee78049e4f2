"""Figures as files: their own size in every format, and no text beyond the canvas, on a screen and in print."""

import re
import struct
from pathlib import Path

import pytest
from chromium import FLAGS, need
from report_runs import full_run
from tiny import BACKEND

from analysis.report.figures import drawn_figures
from analysis.report.files import draw_files, paper_name
from analysis.report.grids import grid_figures
from analysis.report.run import RunData
from analysis.style.export import SCALE, export_figures
from analysis.style.printed import INCH, POINT, SMALLEST, printed

OUTSIDE = """
const canvas = [...document.querySelectorAll("svg.main-svg")].filter((one) => !one.parentElement.closest("svg"));
const outside = [];
for (const svg of canvas) {
  const edge = svg.getBoundingClientRect();
  for (const text of svg.querySelectorAll("text")) {
    const box = text.getBoundingClientRect();
    if (!box.width || getComputedStyle(text).visibility === "hidden") continue;
    const beyond = [edge.left - box.left, edge.top - box.top, box.right - edge.right, box.bottom - edge.bottom];
    if (Math.max(...beyond) > 1) outside.push(`${svg.parentElement.id}: ${text.textContent}: ${beyond.map(Math.round)}`);
  }
}
return outside;
"""


@pytest.fixture(scope="module")
def data(lens_models, tmp_path_factory):
    return RunData.open(full_run(tmp_path_factory.mktemp("full"), lens_models["llama", BACKEND]).root)


def every_figure(data):
    """All figures of a run as on a screen, and all but the browser's table in print on a column and on a page."""
    figures = drawn_figures(data)
    drawn = {name: figure for name, figure in figures.items() if name != "neuron_browser"}
    column = {f"{name}-column": printed(figure, width=3.3, title=False) for name, figure in drawn.items()}
    return {**figures, **column, **{f"{name}-page": printed(figure, width=6.9) for name, figure in drawn.items()}}


def test_every_figure_has_its_size_and_its_text_inside(data, tmp_path):
    browser, driver = need("chromium", "chromedriver")
    figures = every_figure(data)
    # What is for a screen as PNG, what is for print as PDF: its pages, which differ in size alone, in one width.
    screen = drawn_figures(data)
    export_figures(figures, tmp_path, ["svg"])
    export_figures(screen, tmp_path, ["png"])
    export_figures({name: one for name, one in figures.items() if name.endswith("-column")}, tmp_path, ["pdf"])
    page = ""
    for name, figure in figures.items():
        width, height = figure.layout.width, figure.layout.height
        if name in screen:
            png = (tmp_path / f"{name}.png").read_bytes()
            assert struct.unpack(">II", png[16:24]) == (SCALE * width, SCALE * height), name
        svg = (tmp_path / f"{name}.svg").read_text(encoding="utf-8")
        assert f'width="{width}" height="{height}"' in svg, name
        if name.endswith("-column"):
            pdf = (tmp_path / f"{name}.pdf").read_bytes()
            box = re.search(rb"MediaBox ?\[0 0 ([\d.]+) ([\d.]+)\]", pdf)
            assert box, name
            assert [float(side) for side in box.groups()] == pytest.approx([0.75 * width, 0.75 * height], abs=1), name
            assert b"/FontFile" in pdf, name
        page += f'<div id="{name}">{svg}</div>'
    (tmp_path / "all.html").write_text(f'<meta charset="utf-8">{page}', encoding="utf-8")
    assert _ask(browser, driver, tmp_path / "all.html") == []


def _ask(browser: str, driver: str, page: Path) -> list[str]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in FLAGS:
        options.add_argument(flag)
    window = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        window.get(page.as_uri())
        return window.execute_script(OUTSIDE)
    finally:
        window.quit()


def sizes_of_text(node, inside=""):
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "size" and "font" in inside:
                yield from (value if isinstance(value, list | tuple) else [value])
            elif key != "template":
                yield from sizes_of_text(value, key)
    elif isinstance(node, list | tuple):
        for one in node:
            yield from sizes_of_text(one, inside)


def test_print_has_the_width_and_no_small_text(data):
    for name, figure in drawn_figures(data).items():
        before = figure.to_json()
        small = printed(figure, width=3.3, font=8, title=False)
        assert small.layout.width == round(3.3 * INCH), name
        assert small.layout.title.text is None
        assert min([*sizes_of_text(small.to_dict()), small.layout.font.size]) >= SMALLEST * POINT - 1e-9, name
        assert figure.to_json() == before
        assert [trace.type for trace in small.data] == [trace.type for trace in figure.data]
    for wrong in ({"width": 0.0}, {"width": 3.3, "font": 6.0}):
        with pytest.raises(ValueError, match=r"above 0 inches|at least 7"):
            printed(figure, **wrong)


def test_panels_are_stacked_on_a_column_only(data):
    figure = drawn_figures(data)["paper_gains"]
    column, page = (printed(figure, width=width) for width in (3.3, 6.9))
    assert column.layout.xaxis.domain == column.layout.xaxis2.domain == (0, 1)
    assert column.layout.yaxis2.domain[1] < column.layout.yaxis.domain[0]
    assert page.layout.yaxis2.domain == page.layout.yaxis.domain


def test_names_have_the_papers_numbers():
    assert paper_name("tsne_map_xnli") == "figure-4-tsne_map_xnli"
    assert paper_name("alpha_curve") == "figure-5-alpha_curve"
    assert paper_name("forest_xnli") == "forest_xnli"


def test_files_for_print(data, tmp_path):
    written = draw_files([data.run.root], tmp_path, ["html"], width=3.3)
    assert tmp_path / "figure-1-layer_distribution.html" in written
    assert not any("neuron_browser" in path.name for path in written)


def test_runs_side_by_side(data):
    other = RunData(data.run, {**data.manifest, "collect": {**data.manifest["collect"], "model": {"name": "<b>"}}})
    figures = grid_figures([data, other])
    assert {"layer_distribution", "cosine_to_english", "gain_vs_alignment", "gain_heatmap", "forest"} <= set(figures)
    grid = figures["cosine_to_english"]
    headings = [note.text for note in grid.layout.annotations]
    name = data.model
    assert headings == [f"(a) XNLI, {name}", f"(b) XQuAD, {name}", "(c) XNLI, &lt;b&gt;", "(d) XQuAD, &lt;b&gt;"]
    assert grid.layout.xaxis.matches or grid.layout.xaxis2.matches
    assert [trace.name for trace in grid.data if trace.showlegend] == ["before steering", "after steering"]
    with pytest.raises(ValueError, match="told apart by their models"):
        grid_figures([data, data])
