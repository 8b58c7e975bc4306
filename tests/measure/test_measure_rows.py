"""Predictions against published times: near for the rows that rates were made from, inside the band for all others."""

import pytest
from published_rows import FLOAT, INT8, MACS, MADE, network

from edgeward.devices import devices, load_profile
from edgeward.measure.prediction import predict_latency
from edgeward.measure.work import node_work, total_macs

ROWS = [
    (board, precision, name, milliseconds)
    for precision, boards in ((None, FLOAT), ((8, 8), INT8))
    for board, rows in boards.items()
    for name, milliseconds in rows.items()
]
HELD_OUT = [row for row in ROWS if row[2] not in MADE[row[1]]]
UNTESTED = [
    (board, precision) for board, precision, *_ in ROWS if not any(row[:2] == (board, precision) for row in HELD_OUT)
]


def ratio(board, precision, name, milliseconds):
    return predict_latency(network(name, precision), load_profile(board)).total / (milliseconds * 1e-3)


@pytest.mark.parametrize("name", MACS)
def test_the_networks_are_those_of_the_benchmark(name):
    written = network(name, None)
    assert total_macs(node_work(written, node) for node in written.nodes) == MACS[name]


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row not in HELD_OUT], ids=lambda row: f"{row[0]}-{row[2]}-{row[1]}"
)
def test_rates_repeat_the_rows_they_were_made_from(row):
    assert 0.95 < ratio(*row) < 1.15


@pytest.mark.parametrize("row", HELD_OUT, ids=lambda row: f"{row[0]}-{row[2]}-{row[1]}")
def test_rows_that_no_rate_was_made_from_lie_inside_the_band(row):
    band = load_profile(row[0]).band.value
    assert 1 / band < ratio(*row) < band


def test_the_bands_say_what_the_rows_showed():
    for board in FLOAT:
        found = [ratio(*row) for row in HELD_OUT if row[0] == board]
        source = load_profile(board).band.source
        assert f"{max(found):.2f}" in source, (board, found)
        if len(found) > 1 and board != "x86-laptop":
            assert f"{min(found):.2f} to {max(found):.2f}" in source
        assert ("int8 rests on one row and is not tested" in source) == ((board, (8, 8)) in UNTESTED)
    assert not [pair for pair in UNTESTED if pair[1] is None]


def test_a_band_without_a_row_says_that_nothing_was_measured():
    boards = {"cortex-m4", "cortex-m7", "cortex-m33"}
    followers = {"rpi3-optee": "rpi3", "rpi5-optee": "rpi5"}
    for name in devices():
        profile = load_profile(name)
        if name in followers:
            assert profile.band == load_profile(followers[name]).band
            assert profile.mac_per_second == load_profile(followers[name]).mac_per_second
        elif name not in FLOAT and name not in boards:
            assert "nothing was measured" in profile.band.source or "instruction counts" in profile.band.source
