"""What a browser makes of the page: no complaint, every figure visible, no sideways scrolling on a telephone."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report_fixture import make_report, poisoned

from edgeward.report import render_html

pytestmark = pytest.mark.browser
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">" + "w" * 200

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no chromium with chromedriver on this machine")
    options = selenium.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    session = selenium.Chrome(options=options, service=selenium.ChromeService(driver))
    yield session
    session.quit()


def show(browser: Any, folder: Path, text: str, width: int, height: int) -> None:
    page = folder / "report.html"
    page.write_text(text, encoding="utf-8")
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page.as_uri())
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (375, 812)])
@pytest.mark.parametrize("hostile", [False, True], ids=["plain", "hostile"])
def test_the_page_in_a_browser(browser: Any, tmp_path: Path, width: int, height: int, hostile: bool) -> None:
    report = make_report()
    show(browser, tmp_path, render_html(poisoned(report, HOSTILE) if hostile else report), width, height)
    assert browser.get_log("browser") == []
    assert "owned" not in browser.title.split("<script>")[0]
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    assert browser.execute_script("return window.innerWidth") == width
    figures = browser.find_elements("css selector", "svg.figure")
    assert len(figures) == 4
    for figure in figures:
        assert figure.is_displayed()
        assert figure.size["width"] > 250
        assert figure.size["height"] > 80
    assert browser.execute_script("return document.scripts.length + document.images.length") == 0


def test_the_verdicts_are_on_the_first_screen(browser: Any, tmp_path: Path) -> None:
    show(browser, tmp_path, render_html(make_report()), 1280, 900)
    bottoms = [card.rect["y"] + card.rect["height"] for card in browser.find_elements("css selector", ".card")]
    assert len(bottoms) == 3
    assert max(bottoms) <= 900


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_ink_differs_from_paper_in_both_themes(browser: Any, tmp_path: Path, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    show(browser, tmp_path, render_html(make_report()), 1280, 900)
    script = """
      const light = c => { const [r, g, b] = c.match(/\\d+/g).map(Number); return 0.3 * r + 0.59 * g + 0.11 * b; };
      const body = getComputedStyle(document.body), svg = getComputedStyle(document.querySelector('svg.figure'));
      return [light(body.backgroundColor), light(body.color), light(svg.color)];
    """
    paper, ink, figure_ink = browser.execute_script(script)
    assert (paper > 200) == (scheme == "light")
    assert abs(paper - ink) > 120
    assert abs(paper - figure_ink) > 120
