"""The report of a mirror run: its schema, its verdicts, the card, the page and what a browser makes of it."""

import copy
import json
import re
from html.parser import HTMLParser

import pytest
from jsonschema import Draft202012Validator
from split_report_fixture import BUDGETS, hostile_report, make_split_report
from test_report_browser import HOSTILE, browser, show

from edgeward.backends.tee.assets import ADVERSARIES, ASSETS, PHASES, STATUSES
from edgeward.core.errors import ConfigError, DataError
from edgeward.report.splits import render_split_card, render_split_page, split_schema, write_split_report
from edgeward.report.splits.schema import split_violations, words_of
from edgeward.report.splits.tables import asset_table, split_table
from edgeward.report.splits.verdict import budget, confidentiality, exposure, limit_bars, standing

__all__ = ["browser"]


@pytest.fixture(scope="module")
def report():
    return make_split_report()


def chosen(report, name="wide"):
    return next(split for split in report["splits"] if split["name"] == name)


def changed(report, place, value):
    """Return a copy of the report with the value at a dotted place replaced, or removed where it is `...`."""
    new = copy.deepcopy(report)
    at, keys = new, place.split(".")
    for key in keys[:-1]:
        at = at[int(key)] if key.isdecimal() else at[key]
    if value is ...:
        del at[keys[-1]]
    else:
        at[keys[-1]] = value
    return new


def test_the_schema_is_one_and_both_checks_agree(report):
    validator = Draft202012Validator(split_schema())
    Draft202012Validator.check_schema(split_schema())
    assert list(validator.iter_errors(report)) == []
    wrong = [
        ("schema", "edgeward.report/2"),
        ("budgets", []),
        ("seed", 0.5),
        ("splits.0.modelled.transfer", "later"),
        ("splits.0.modelled.seconds.copy", -1.0),
        ("splits.0.stealing.budgets.0.accuracy", 0.5),
        ("splits.0.stealing.bar", 0.5),
        ("splits.1.assets.protections.0.status", "safe"),
        ("splits.1.checklist.0.answer", "yes"),
        ("splits.1.verdict", ...),
        ("victim_accuracy.interval", [0.1]),
    ]
    for place, value in wrong:
        document = changed(report, place, value)
        assert list(validator.iter_errors(document)), place
        assert split_violations(document), place


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("chosen", "absent", "expected the name of a split"),
        ("splits.0.name", "wide", "occurs twice"),
        ("splits.0.confidential", True, "stealing ratio is above"),
        ("splits.1.stealing.trusted_disguises", 2, "or missing"),
        ("splits.1.stealing.direct_accuracy.value", 0.95, "visible part alone"),
        ("budgets", [50, 500], "queries each"),
    ],
)
def test_a_report_cannot_contradict_itself(report, place, value, message):
    document = changed(report, place, value)
    assert any(message in line for line in split_violations(document))
    with pytest.raises(DataError):
        render_split_card(document)


def test_the_words_are_those_of_the_asset_matrix():
    kinds = {"asset": ASSETS, "phase": PHASES, "adversary": ADVERSARIES, "status": STATUSES}
    assert {kind: words_of(kind) for kind in kinds} == kinds


def test_verdicts_follow_the_numbers(report):
    wide = chosen(report)
    found = confidentiality(report, wide)
    assert (found.tone, found.status[:30]) == ("warn", "confidential on the point esti")
    assert "interval reaches past" in found.status
    sure = changed(report, "splits.1.stealing.budgets.0.ratio_to_black_box.interval", [1.0, 1.049])
    assert confidentiality(sure, chosen(sure)).tone == "good"
    assert confidentiality(report, chosen(report, "narrow")).status == "not confidential"
    idle = changed(report, "splits.1.confidential", False)
    assert confidentiality(idle, chosen(idle)).tone == "bad"
    disguised = changed(
        changed(idle, "splits.1.stealing.confidential", False), "splits.1.stealing.trusted_disguises", 1
    )
    assert confidentiality(disguised, chosen(disguised)).status == "not shown to be confidential"
    assert confidentiality(report, None).status == "no split was chosen"


def test_limits_are_judged_one_by_one(report):
    met = {bar.title: bar.met for bar in limit_bars(report, chosen(report))}
    assert set(met.values()) == {True}
    assert budget(report, chosen(report)).status == "all 4 limits of device and accuracy hold"
    assert standing(report, chosen(report, "deep, no answer")) == "over the limit: overhead"
    assert standing(report, chosen(report, "narrow")) == "over the limit: authorised accuracy"
    assert budget(report, None).tone == "bad"


def test_the_direct_use_gap_is_never_judged_good(report):
    found = exposure(chosen(report))
    assert found.tone == "plain"
    assert any("does not measure security" in line for line in found.lines)
    assert exposure(chosen(report, "deep, no answer")).status == "no answer of its own"


def test_the_table_stands_between_both_ends(report):
    rows = split_table(report).rows
    assert [row[1].text for row in rows[-2:]] == ["everything in the secure world", "no shield"]
    assert [cell.text for cell in rows[-1][6 : 6 + len(BUDGETS)]] == ["2.90", "1.65", "1.24"]
    assert split_table(report).marked == {1}
    matrix = asset_table(chosen(report)).rows
    assert len(matrix) == len(ASSETS) * len(PHASES)
    assert [cell.text for cell in matrix[ASSETS.index("inputs") * len(PHASES)][2:]] == ["not protected"] * 4


def test_the_card_says_the_verdict_first_and_what_was_not_tested(report):
    card = render_split_card(report)
    body = card.split("---\n", 2)[2]
    assert body.index("confidential on the point estimate") < body.index("## Splits") < body.index("## Checklist")
    for text in ("measured", "modelled", "emulated", "R2", "## What was not tested", "Streamed transfer", "no board"):
        assert text in body, text
    assert "R3 Is rollback refused?" in body
    assert "edgeward mirror net:resnet" in body
    other = render_split_card(report, "narrow")
    assert "**not confidential** (narrow)" in other
    with pytest.raises(ConfigError, match="no such split"):
        render_split_card(report, "absent")
    none = render_split_card(make_split_report(chosen=None, choice="none of 3 splits keeps every limit"))
    assert "no split was chosen" in none
    assert "narrow" in none


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen, self.links = set(), []

    def handle_starttag(self, tag, attributes):
        self.seen.add(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "xlink:href")]


@pytest.mark.parametrize("text", [HOSTILE, "| # [x](http://e) `", "\u202e\x07"])
def test_texts_of_others_stay_text(text):
    document = hostile_report(text)
    tags = Tags()
    tags.feed(render_split_page(document))
    assert not tags.seen & {"script", "img", "iframe", "object", "embed", "form", "base"}
    assert all(link.startswith(("#", "data:,")) for link in tags.links)
    card = render_split_card(document)
    prose = re.sub(r"(?ms)^(`{3,}).*?^\1$", "", card.split("---\n", 2)[2])
    assert "<script" not in prose
    assert not re.search(r"(?<!\\)\]\(", prose)
    assert not re.search(r"[\u202e\x07]", card)


def test_equal_reports_give_equal_small_files(report, tmp_path):
    first = {path.name: path.read_bytes() for path in write_split_report(tmp_path / "a", report)}
    second = {path.name: path.read_bytes() for path in write_split_report(tmp_path / "b", report)}
    assert first == second
    assert first.keys() == {"report.json", "report.html", "CARD.md"}
    assert len(first["report.html"]) < 1_000_000
    assert json.loads(first["report.json"]) == report


def test_missing_numbers_are_said_and_nothing_breaks(report):
    document = copy.deepcopy(report)
    for each in document["splits"]:
        each["confidential"] = each["stealing"]["confidential"] = False
        each["modelled"]["overhead"] = None
        for stolen in each["stealing"]["budgets"]:
            for name in ("accuracy", "ratio_to_black_box", "black_box"):
                stolen[name] = {"value": None, "interval": [None, None], "n": 0, "method": "none"}
    assert "not measured" in render_split_page(document)
    assert "not measured" in render_split_card(document)
    assert "No split was chosen out of 0" in render_split_page(make_split_report(splits=[], chosen=None))


@pytest.mark.browser
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (375, 812)])
@pytest.mark.parametrize("hostile", [False, True], ids=["plain", "hostile"])
def test_the_split_page_in_a_browser(browser, report, tmp_path, width, height, hostile):
    document = hostile_report(HOSTILE) if hostile else report
    show(browser, tmp_path, render_split_page(document), width, height)
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    figures = browser.find_elements("css selector", "svg.figure")
    assert len(figures) == 3
    assert all(
        figure.is_displayed() and figure.size["width"] > 250 and figure.size["height"] > 80 for figure in figures
    )
    assert browser.execute_script("return document.scripts.length + document.images.length") == 0
    bottoms = [card.rect["y"] + card.rect["height"] for card in browser.find_elements("css selector", ".card")]
    assert width < 1000 or hostile or max(bottoms) <= 900


def test_a_negative_overhead_is_added_up_and_explained(report):
    index = next(i for i, split in enumerate(report["splits"]) if split["name"] == "narrow")
    place = f"splits.{index}.modelled"
    modelled = {
        **report["splits"][index]["modelled"],
        "transfer": "batch",
        "overhead": -0.02,
        "seconds_normal": 0.1,
        "seconds_total": 0.098,
        "seconds": {"normal": 0.095, "handover": 1e-4, "switch": 2e-4, "memref": 1e-4, "copy": 1e-4, "secure": 2.5e-3},
        "saved": {"work": 4e-3, "calls": 1e-3},
    }
    negative = changed(report, place, modelled)
    sum_of = "done 5.0 ms earlier (4.0 ms of float work and 1.0 ms of calling operators behind the last tap)"
    for text in (render_split_page(negative), render_split_card(negative, "narrow")):
        assert "Overhead -2.00 % of 100.0 ms" in text.replace("\N{NO-BREAK SPACE}", " ")
        assert sum_of in text
        assert "take 3.0 ms" in text
        assert "not a gain that was measured" in text
    # the terms explain the total: -5 + 3 = -2 ms of 100 ms
    assert pytest.approx(3e-3 - 5e-3) == 0.098 - 0.1
    assert "not a gain that was measured" not in render_split_card(report, "narrow")


def test_a_query_limit_changes_what_is_open(report):
    free = render_split_card(report, "wide")
    assert "nothing in the secure world counts how often" in free
    place = f"splits.{next(i for i, s in enumerate(report['splits']) if s['name'] == 'wide')}.query_limit"
    assert "nothing in the secure world counts" not in render_split_card(changed(report, place, max(BUDGETS)), "wide")
    wide = render_split_card(changed(report, place, 10 * max(BUDGETS)), "wide")
    assert "As many label queries as a device answers" in wide
