"""The card: Markdown that stays Markdown, front matter that stays data."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_fixture import make_report, poisoned

from edgeward.core import Budget
from edgeward.core.errors import ConfigError
from edgeward.report import render_card
from edgeward.report.markdown import code_block, escape, yaml

HOSTILE = (
    "| x |\n---\n# <script>alert(1)</script> ![i](https://evil.example/i.png) [l](javascript:x) @who "
    "`c` ```\"': {a: b} &lt;\u202e\ud800"
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()
)


def front_matter(card: str) -> list[str]:
    lines = card.splitlines()
    assert lines[0] == "---"
    return lines[1 : lines.index("---", 1)]


def test_the_card_has_every_section() -> None:
    card = render_card(make_report())
    assert re.findall(r"^#+ (.*)$", card, flags=re.MULTILINE)[1:] == [
        "Assets and adversaries",
        "Leakage of training records",
        "Utility",
        "Cost",
        "What was not tested",
        "Data",
        "How to verify",
    ]
    for words in (
        "edgeward verify .",
        "1,600 (trials)",
        "\\[1.3 %, 2.7 %\\]",
        "modelled",
        "edgeward protect digits.toml",
    ):
        assert words in card, words


def test_front_matter_is_plain_data() -> None:
    lines = front_matter(render_card(make_report()))
    for line in lines:
        value = re.sub(r"^\s*(- )?([a-z_-]+:)?\s?", "", line)
        if value:
            json.loads(value)
    assert "            value: 0.951" in lines
    assert '  - name: "gecko:crossfit ' in "\n".join(lines)


def test_any_candidate_has_a_card_and_unknown_ids_are_named() -> None:
    report = make_report()
    for candidate in report["candidates"]:
        assert candidate["id"] in render_card(report, candidate["id"])
    with pytest.raises(ConfigError, match="no such candidate") as caught:
        render_card(report, "beef")
    assert report["candidates"][0]["id"] in str(caught.value)


def test_nothing_chosen_gives_a_card_that_says_so() -> None:
    assert "nothing should ship" in render_card(make_report(Budget(file_bytes=1)))


def render(markdown: str) -> str:
    module = pytest.importorskip("markdown_it", reason="markdown-it-py is not installed")
    return str(module.MarkdownIt("commonmark").enable("table").render(markdown))


def body(card: str) -> str:
    return card.split("\n---\n", 1)[1]


def test_hostile_names_change_nothing_but_words() -> None:
    report = make_report()
    plain, hostile = render(body(render_card(report))), render(body(render_card(poisoned(report, HOSTILE))))
    tags = [re.findall(r"</?([a-z0-9]+)[^>]*>", text) for text in (plain, hostile)]
    assert set(tags[1]) <= set(tags[0]), set(tags[1]) - set(tags[0])
    assert tags[0].count("h2") == tags[1].count("h2")
    assert tags[0].count("table") == tags[1].count("table")
    assert "&lt;script&gt;alert(1)" in hostile
    assert "href" not in hostile
    assert "src=" not in hostile
    front = front_matter(render_card(poisoned(report, HOSTILE)))
    assert len(front) == len(front_matter(render_card(report)))


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_escaped_text_renders_as_itself(text: str) -> None:
    rows = render(f"| a | b |\n| --- | --- |\n| {escape(text)} | end |\n")
    assert rows.count("<td") == 2
    assert set(re.findall(r"<([a-z0-9]+)", rows)) == {"table", "thead", "tbody", "tr", "th", "td"}
    item = render(f"- {escape(text)}\n- end\n")
    assert set(re.findall(r"<([a-z0-9]+)", item)) == {"ul", "li"}


@given(st.text(alphabet="`~ab\n"))
def test_a_code_block_cannot_be_left(text: str) -> None:
    assert set(re.findall(r"<([a-z0-9]+)", render(code_block(text) + "\n"))) == {"pre", "code"}


@given(st.dictionaries(st.from_regex(r"[a-z][a-z_]{0,5}", fullmatch=True), SCALARS, min_size=1))
def test_yaml_scalars_are_json(value: dict[str, Any]) -> None:
    lines = yaml(value).splitlines()
    assert len(lines) == len(value)
    for line in lines:
        json.loads(line.split(": ", 1)[1])
