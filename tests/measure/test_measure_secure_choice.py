"""Choosing among networks: the cheapest that is good enough, by validation utility alone."""

import pytest
from torch import nn

from edgeward.backends.mpc.costs import SciOt
from edgeward.core.errors import ConfigError
from edgeward.graph import capture
from edgeward.measure.secure_choice import choose, offers


def network(width):
    return capture(nn.Sequential(nn.Conv2d(1, width, 3), nn.ReLU()).eval(), (1, 6, 6))


def test_the_cheapest_good_enough_one_is_chosen():
    candidates = {f"width {width}": network(width) for width in (8, 1, 2, 4)}
    found = offers(candidates, {"width 8": 0.95, "width 4": 0.96, "width 2": 0.945, "width 1": 0.5}, SciOt())
    assert [offer.name for offer in found] == ["width 1", "width 2", "width 4", "width 8"]
    assert choose(found, "width 8", 0.01).name == "width 2"
    assert choose(found, "width 8", 0.0).name == "width 4"
    assert choose(found, "width 8", 1.0).name == "width 1"


def test_candidates_without_a_utility_make_no_offer_and_the_reference_must():
    found = offers({"a": network(1), "b": network(2)}, {"a": 0.9}, SciOt())
    assert [offer.name for offer in found] == ["a"]
    with pytest.raises(ConfigError, match="no such candidate"):
        choose(found, "b", 0.1)
