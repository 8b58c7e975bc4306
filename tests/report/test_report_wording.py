"""Words and numbers: one line, one unit, nothing hidden."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from edgeward.report.svg import label
from edgeward.report.wording import NOT_MEASURED, amount, clean, finite, flat, percent, shorten, with_bounds

ANY_NUMBER = st.one_of(st.floats(allow_nan=True, allow_infinity=True), st.integers(), st.none(), st.booleans())
ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=()))


@given(ANY_TEXT)
def test_clean_text_is_one_visible_encodable_line(text: str) -> None:
    shown = clean(text)
    shown.encode("utf-8")
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in shown)
    assert clean(shown) == shown
    assert len(shown) == len(text)


@given(ANY_TEXT, st.integers(1, 40))
def test_shortened_text_fits(text: str, width: int) -> None:
    assert len(shorten(text, width)) <= width


@given(ANY_TEXT)
def test_figure_labels_hold_no_markup(text: str) -> None:
    shown = label(7, text)
    assert shown.isascii()
    assert not set(shown) & set("<>&$\\\"'{}^_`|\n") - {"_"}


@given(ANY_NUMBER, st.sampled_from(["B", "s", "J", "", "MAC", "fraction", "<b>"]))
def test_every_number_becomes_words(value: float | None, unit: str) -> None:
    assert amount(value, unit)
    assert (percent(value) == NOT_MEASURED) == (finite(value) is None)


@given(st.floats(1e-12, 1.0))
def test_a_small_rate_never_reads_as_zero(rate: float) -> None:
    assert float(percent(rate).removesuffix(" %")) > 0


def test_an_estimate_without_interval_is_shown_bare() -> None:
    assert with_bounds({"value": 0.5, "interval": [None, None], "n": 0, "method": ""}) == "50.0 %"
    assert with_bounds({"value": None, "interval": [0.1, 0.2], "n": 0, "method": ""}) == NOT_MEASURED


def test_nested_tables_are_named_by_their_path() -> None:
    value = {"a": [{"b": 1.0}, {"b": True}], "c": {}, "d": "x\ny"}
    assert flat(value) == [("a[0].b", "1"), ("a[1].b", "yes"), ("c", "none"), ("d", "x y")]
