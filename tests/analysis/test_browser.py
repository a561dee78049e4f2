"""The report in a real browser: no error, every figure drawn, navigation, sorting, both looks, and no text that runs."""

import base64

import pytest
from chromium import FLAGS, need
from report_runs import full_run
from tiny import BACKEND

from analysis.figures.paper import paper_gains
from analysis.report.build import build_report
from analysis.style.export import export_figures


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    binary, driver = need("chromium", "chromedriver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    running = webdriver.Chrome(options=options, service=Service(driver))
    running.set_script_timeout(60)
    yield running
    running.quit()


@pytest.fixture(scope="module")
def report(lens_models, tmp_path_factory):
    """A report whose texts would run if they could."""
    return build_report(full_run(tmp_path_factory.mktemp("run"), lens_models["llama", BACKEND], hostile=True).root)


@pytest.fixture(scope="module")
def page(browser, report):
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get(report.as_uri())
    # Plotly may draw after the page is there, where the machine is busy.
    undrawn = (
        "return [...document.querySelectorAll('[data-figure]')].filter(one => !one.querySelector('.main-svg')).length"
    )
    WebDriverWait(browser, 60).until(lambda shown: shown.execute_script(undrawn) == 0, "figures that are not drawn")
    return browser


def rows(page, selector: str) -> list[list[str]]:
    return page.execute_script(
        "const rows = [...document.querySelector(arguments[0]).tBodies[0].rows];"
        "return rows.map(row => [...row.cells].map(cell => cell.textContent.trim()))",
        selector,
    )


def click(page, selector: str) -> None:
    page.execute_script("document.querySelector(arguments[0]).click()", selector)


def test_every_figure_is_drawn_and_nothing_fails(page):
    drawn = page.execute_script(
        "return [...document.querySelectorAll('[data-figure]')].map(box => [box.dataset.figure, "
        "box.querySelectorAll('svg.main-svg').length, box.getBoundingClientRect().height])"
    )
    assert len(drawn) > 12
    assert all(count > 0 and height > 150 for _, count, height in drawn), drawn
    assert page.get_log("browser") == []


def test_no_text_of_data_has_run(page):
    assert page.execute_script("return document.hacked === undefined")
    # The pictures for print are drawn by the page itself.
    strange = "main script, main img:not(.static), main img.static:not([src^='data:image/svg'])"
    assert page.execute_script("return document.querySelectorAll(arguments[0]).length", strange) == 0
    assert "{{7*7}}" in page.execute_script("return document.querySelector('#answers').textContent")
    hovers = page.execute_script(
        "const box = document.querySelector('[data-figure=tsne_map_xnli]');"
        "Plotly.Fx.hover(box, [{curveNumber: 0, pointNumber: 0}]);"
        "return box.querySelector('.hoverlayer').textContent"
    )
    assert "<script>document.hacked" in hovers
    assert page.execute_script("return document.hacked === undefined")


def test_navigation_goes_to_every_section(page):
    ids = page.execute_script("return [...document.querySelectorAll('nav a')].map(link => link.hash.slice(1))")
    assert len(ids) == 9
    page.execute_script("document.documentElement.style.scrollBehavior = 'auto'")
    for name in ids[1:6]:
        click(page, f"nav a[href='#{name}']")
        top = page.execute_script("return document.getElementById(arguments[0]).getBoundingClientRect().top", name)
        assert 0 <= top < 120, name
        here = page.execute_async_script(
            "const done = arguments[0];"
            "requestAnimationFrame(() => requestAnimationFrame(() => done(document.querySelector('nav a.here').hash)))"
        )
        assert here == f"#{name}"


def test_tables_sort_by_number_and_back(page):
    heading = "#paper table.data th:nth-child(2)"
    click(page, heading)
    up = [float(row[1]) for row in rows(page, "#paper table.data") if row[1]]
    assert up == sorted(up)
    assert up[0] == 36.09  # Urdu, the paper's lowest base score
    click(page, heading)
    down = [row[1] for row in rows(page, "#paper table.data")]
    assert [float(value) for value in down if value] == up[::-1]
    assert (
        page.execute_script("return document.querySelector(arguments[0]).getAttribute('aria-sort')", heading)
        == "descending"
    )


def test_tables_in_parts_sort_within_them(page):
    page.execute_script(
        "[...document.querySelectorAll('#results table')].find(table => table.textContent.includes('by language')).id = 'gains'"
    )
    names = [row[0] for row in rows(page, "#gains")]
    parts = names.index("over languages")
    gain = page.execute_script(
        "return [...document.querySelector('#gains').querySelectorAll('th[aria-sort]')]"
        ".findIndex(th => th.textContent === 'gain')"
    )
    page.execute_script(
        "document.querySelector('#gains').querySelectorAll('th[aria-sort]')[arguments[0]].click()", gain
    )
    after = rows(page, "#gains")
    assert after[0] == ["by language"]
    assert [row[0] for row in after].index("over languages") == parts
    gains = [float(row[gain].replace("\N{MINUS SIGN}", "-")) for row in after[1:parts] if row[gain]]
    assert gains == sorted(gains)
    assert len(gains) >= 6


def test_a_filter_hides_the_other_rows(page):
    shown, there, own = page.execute_script(
        "const input = document.querySelector('#answers .filter'); input.value = 'de';"
        "input.dispatchEvent(new Event('input'));"
        "const rows = [...input.parentElement.querySelectorAll('tbody tr')];"
        "const own = rows.filter(row => row.cells[0].textContent.trim() === 'de');"
        "return [rows.filter(row => !row.hidden).length, rows.length, own.length]"
    )
    assert 0 < shown == own < there


def test_light_and_dark(page):
    def paper():
        return page.execute_script(
            "return [getComputedStyle(document.body).backgroundColor, "
            "document.querySelector('[data-figure] .main-svg').style.background]"
        )

    dark = ["rgb(20, 24, 29)"] * 2
    light = paper()
    assert light == ["rgb(255, 255, 255)"] * 2
    click(page, "#theme")
    assert paper() == dark
    click(page, "#theme")
    assert paper() == light
    page.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    )
    page.refresh()
    assert paper() == dark
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_a_narrow_screen_scrolls_figures_not_the_page(page):
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 420, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    )
    assert page.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_screenshot_has_more_than_paper(page, tmp_path):
    shot = page.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
    picture = tmp_path / "report.png"
    picture.write_bytes(base64.b64decode(shot["data"]))
    assert picture.stat().st_size > 20_000


def test_pictures_are_drawn(tmp_path):
    need("chromium")
    written = export_figures({"paper": paper_gains({})}, tmp_path, ["png", "svg", "pdf"])
    starts = [path.read_bytes()[:5] for path in written]
    assert starts == [b"\x89PNG\r", b"<svg ", b"%PDF-"]
