"""The page: self-contained, small, and deaf to markup in names."""

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from report_fixture import RUNS, frontier, make_report, poisoned

from edgeward.core import Budget, Candidate
from edgeward.core.errors import DataError
from edgeward.core.frontier import Frontier, Measured
from edgeward.report import render_html

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(1)>\"'><svg onload=alert(1)></style></title>"
    "{{ 7 * 7 }}{% raw %}-->|$\\frac{x}$\u202e\u0000\ud800\n# x javascript:alert(1) https://evil.example/x"
)
TAGS = frozenset(
    re.findall(
        r"\w+",
        "html head meta link title style body header h1 h2 h3 p strong main section div span small ul li figure "
        "figcaption svg g path defs clippath use rect table thead tbody tr th td details summary code pre footer a",
    )
)


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def html() -> str:
    return render_html(make_report())


@pytest.fixture(scope="module")
def hostile() -> str:
    return render_html(poisoned(make_report(), HOSTILE))


def check_inert(text: str) -> Page:
    page = Page(text)
    for tag, attributes in page.tags:
        assert tag in TAGS, tag
        assert not [a for a in attributes if a.startswith("on")], (tag, attributes)
        assert set(attributes) & {"src", "srcset", "action", "formaction", "xlink:href"} == set()
        href = attributes.get("href") or ""
        assert href.startswith("#") or href in ("", "data:,"), href
        assert "url(" not in (attributes.get("style") or "").replace("url(#", ""), attributes
    return page


def test_the_page_is_one_small_file_that_loads_nothing(html: str) -> None:
    assert len(html.encode()) < 1_000_000
    check_inert(html)
    assert not re.search(r"https?://|@import|url\((?!#)", html)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', html)
    assert policy is not None
    assert policy.group(1).startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")


def test_equal_reports_give_equal_bytes(html: str) -> None:
    assert render_html(make_report()) == html


def test_the_first_screen_names_verdict_number_interval_and_baseline(html: str) -> None:
    screen = " ".join(Page(html[: html.index("<h2>")]).words)
    for words in (
        "within the limit",
        "95 % CI",
        "1,600 non-member trials",
        "Gap baseline",
        "at most 64.0 KiB",
        "modelled",
    ):
        assert words in screen, words


def test_every_section_is_there(html: str) -> None:
    headings = re.findall(r"<h[23]>([^<]+)</h[23]>", html)
    assert headings == [
        "Training records",
        "Budget",
        "Claims",
        "Frontier",
        "Leakage of training records",
        "What was not tested",
        "Claims",
        "Cost of the chosen candidate",
        "Every candidate",
        "How this was made",
    ]
    assert html.count("<svg") == 4
    assert html.count('<details id="candidate-') == len(RUNS)
    assert "3-level weights have no place" in html
    assert "edgeward protect digits.toml --seed 0" in html


def test_nothing_is_called_safe(html: str) -> None:
    assert not re.search(r"\b(safe|secure|guaranteed private)\b", " ".join(Page(html).words))


def test_element_ids_are_unique_and_every_reference_resolves(html: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', html)) <= set(ids)
    assert set(re.findall(r"url\(#([^)]+)\)", html)) <= set(ids)


def test_hostile_names_stay_text(hostile: str, html: str) -> None:
    page = check_inert(hostile)
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in Page(html).tags}
    assert "<script>alert(1)</script>" in "".join(page.words)
    assert "{{ 7 * 7 }}" in "".join(page.words)
    for hidden in ("\u202e", "\u0000", "\ud800"):
        assert hidden not in hostile


def test_no_figure_holds_text_from_outside(hostile: str) -> None:
    figures = re.findall(r"<svg.*?</svg>", hostile, flags=re.DOTALL)
    assert len(figures) == 4
    for figure in figures:
        assert "alert" not in figure
        assert "<!--" not in figure
        assert "<text" not in figure


@pytest.mark.parametrize(
    "changes",
    [
        {"budget": Budget(file_bytes=10)},
        {"frontier": Frontier((), Budget())},
        {"finished": False, "failed": []},
        {"frontier": frontier(Budget(), RUNS[:1])},
        {"frontier": frontier(Budget(), tuple((f"r{i}", {}, *RUNS[i % 7][2:]) for i in range(40)))},
        {"device": {}, "data": {}, "environment": {}, "threats": [], "job": {}},
    ],
    ids=["infeasible", "empty", "unfinished", "single", "forty", "bare"],
)
def test_other_runs_have_a_page_too(changes: dict[str, Any]) -> None:
    text = render_html(make_report(**changes))
    check_inert(text)
    assert len(text.encode()) < 1_000_000


def test_a_candidate_without_attacks_is_not_measured() -> None:
    measured = frontier(Budget()).measured[0]
    fields = {**measured.measurement.__dict__, "attacks": (), "kinds": (), "worst": None}
    bare = Measured(Candidate("bare"), type(measured.measurement)(**fields))
    text = " ".join(Page(render_html(make_report(frontier=Frontier((bare,), Budget())))).words)
    assert "No attack was run: nothing is known about leakage." in text


def test_absurd_numbers_are_drawn_without_a_crash() -> None:
    report = make_report()
    for candidate, size in zip(report["candidates"], (1e308, 5e-324, -1.0, 0.0, None, 1e12, 1.0), strict=True):
        candidate["cost"]["file_bytes"] = size
        candidate["test_accuracy"] = size
        candidate["strongest_attack"]["tpr_at_1pct"]["value"] = size
        candidate["strongest_attack"]["tpr_at_1pct"]["interval"] = [size, None]
        candidate["strongest_attack"]["negatives"] = 0
        candidate["strongest_attack"]["roc"] = [[size, size], [1.0, 1.0], [None, 0.5]]
        for layer in candidate["layers"]:
            layer["macs"] = layer["weight_bytes"] = size
    check_inert(render_html(report))


def test_an_invalid_report_is_refused() -> None:
    with pytest.raises(DataError):
        render_html({"schema": "edgeward.report/2"})
