"""Core values: budgets, units, intervals, candidates, seeds, registries, errors and JSON round trips."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from edgeward.core import (
    Budget,
    Candidate,
    Claim,
    Cost,
    Estimate,
    Limit,
    Measurement,
    MembershipInference,
    Quantity,
    Registry,
    SecretRandomness,
    Seed,
)
from edgeward.core.candidate import canonical_json
from edgeward.core.cost import UNITS
from edgeward.core.errors import ConfigError, MissingExtra
from edgeward.core.extras import require
from edgeward.core.measurement import AttackResult
from edgeward.core.units import human, parse_quantity
from search.search_fixture import attack, measurement


@given(trials=st.integers(1, 500), data=st.data(), level=st.sampled_from([0.9, 0.95, 0.99]))
@settings(max_examples=80, deadline=None)
def test_proportion_is_the_exact_interval_of_scipy(trials, data, level):
    successes = data.draw(st.integers(0, trials))
    found = Estimate.proportion(successes, trials, level=level)
    reference = binomtest(successes, trials).proportion_ci(confidence_level=level, method="exact")
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), abs=1e-9)
    assert found.low <= found.value <= found.high
    assert Estimate.from_json(json.loads(json.dumps(found.to_json()))) == found


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (3, 2), (-1, 4)])
def test_impossible_counts_are_refused(successes, trials):
    with pytest.raises(ValueError, match="expected"):
        Estimate.proportion(successes, trials)


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("256KiB", "B", 262144),
        (" 1.5 MB ", "B", 1.5e6),
        ("12", "B", 12),
        ("20ms", "s", 0.02),
        ("3 µs", "s", 3e-6),
        ("5mJ", "J", 5e-3),
        ("1%", "", 0.01),
        ("2e-3", "", 2e-3),
        (".5", "", 0.5),
        ("3M", "", 3e6),
        (7, "s", 7.0),
    ],
)
def test_quantities_are_read(text, unit, value):
    assert parse_quantity(text, unit) == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("", "B"),
        ("lots", "B"),
        ("5ms", "B"),
        ("-3", "B"),
        ("1..2", "s"),
        ("1e999", "s"),
        ("nan", ""),
        (float("nan"), ""),
        (float("inf"), "B"),
        (True, ""),
    ],
)
def test_what_is_no_quantity_is_one_config_error(text, unit):
    with pytest.raises(ConfigError) as caught:
        parse_quantity(text, unit, name="budget.x")
    assert "budget.x" in str(caught.value)
    assert caught.value.fix


@pytest.mark.parametrize("value", [0.0, 1e-15, 1e-4, 0.5, 3.0, 999.0, 1e12])
@pytest.mark.parametrize("unit", ["B", "s", "J", "MAC"])
def test_human_is_short_and_carries_the_unit(value, unit):
    shown = human(value, unit)
    assert unit in shown
    assert len(shown) < 22


def test_budget_reads_limits_and_refuses_all_that_is_out_of_range():
    budget = Budget(file_bytes="64KiB", latency="20ms", accuracy="90%", tpr_at_1pct=0.1, macs="1M")
    assert budget.to_json() == {
        "file_bytes": 65536.0,
        "latency": 0.02,
        "macs": 1e6,
        "accuracy": pytest.approx(0.9),
        "tpr_at_1pct": 0.1,
    }
    assert Budget(**budget.to_json()) == budget
    assert not Budget().limits()
    bad = [{"accuracy": 1.2}, {"auc": "120%"}, {"tpr_at_1pct": 2}, {"macs": -1}, {"accuracy": math.nan}]
    for entry in bad:
        with pytest.raises(ConfigError, match=f"budget.{next(iter(entry))}"):
            Budget(**entry)


@given(bound=st.floats(0, 1e6), value=st.floats(-1e6, 1e6), side=st.sampled_from(["at most", "at least"]))
def test_a_limit_is_missed_exactly_on_its_wrong_side(bound, value, side):
    miss = Limit("x", bound, "", side).miss(value)
    assert (miss > 0) == (value > bound if side == "at most" else value < bound)
    assert miss >= 0


@pytest.mark.parametrize("side", ["at most", "at least"])
def test_nan_never_meets_a_limit(side):
    assert Limit("x", 1.0, "", side).miss(math.nan) == math.inf


def test_measurement_and_its_parts_survive_json():
    for leakage in (0.25, None):
        made = measurement(leakage=leakage, device_latency_seconds=0.01, macs=1000)
        again = Measurement.from_json(json.loads(json.dumps(made.to_json())))
        assert again == made
        assert again.to_json() == made.to_json()
    one = attack()
    assert AttackResult.from_json(json.loads(json.dumps(one.to_json()))) == one
    plain = one.to_json()
    assert all(plain[name]["negatives"] == 200 for name in ("auc", "tpr_at_1pct", "tpr_at_0_1pct"))
    claim = Claim("user input", "anyone", "text", "assumed", "none")
    assert Claim.from_json(json.loads(json.dumps(claim.to_json()))) == claim


def test_report_keys_of_a_candidate():
    plain = measurement(leakage=0.25).to_json()
    assert plain["strongest_attack"]["name"] == "lira"
    assert plain["test_accuracy"] == 0.9
    assert plain["cost"]["file_bytes"] == 1000.0


def test_the_strongest_attack_leads_and_an_unaudited_one_has_none():
    assert measurement(leakage=0.25).strongest_attack.name == "lira"
    assert measurement(leakage=None).strongest_attack is None


@given(st.dictionaries(st.sampled_from(sorted(UNITS)), st.floats(allow_nan=False, allow_infinity=False)))
def test_cost_survives_json_with_provenance(values):
    made = Cost().adding("modelled", "profile", **values)
    assert Cost.from_json(json.loads(json.dumps(made.to_json()))) == made
    assert set(made) == set(values)


def test_cost_refuses_names_and_units_it_does_not_know():
    with pytest.raises(ValueError, match="UNITS"):
        Cost({"beauty": Quantity(1.0, "", "measured")})
    with pytest.raises(ValueError, match="UNITS"):
        Cost({"macs": Quantity(1.0, "B", "measured")})


def test_candidate_digest_is_of_the_content_and_not_of_the_order():
    one = Candidate("gecko", {"alpha": 0.1, "teachers": 3}, {"seed": 0})
    assert one.digest == Candidate("gecko", {"teachers": 3, "alpha": 0.1}, {"seed": 0}).digest
    others = [
        Candidate("gecko:paper", dict(one.config), dict(one.context)),
        Candidate("gecko", {"alpha": 0.2, "teachers": 3}, {"seed": 0}),
        Candidate("gecko", dict(one.config), {"seed": 1}),
        Candidate("gecko", {**one.config, "seed": 0}, {}),
    ]
    assert len({one.digest, *(other.digest for other in others)}) == 5
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"x": math.nan})


@given(st.lists(st.one_of(st.text("abc", min_size=1, max_size=3), st.integers(0, 9)), min_size=1, max_size=3))
def test_seeds_repeat_and_children_differ(labels):
    assert Seed(3).child(*labels) == Seed(3).child(*labels)
    assert Seed(3).child(*labels) != Seed(4).child(*labels)
    assert Seed(3).child(*labels) != Seed(3)
    assert Seed(3).child(*labels).torch().initial_seed() == Seed(3).child(*labels).value


def test_secrets_take_no_seed_and_do_not_repeat():
    secret = SecretRandomness()
    assert secret.bytes(16) != secret.bytes(16)
    assert not hasattr(secret, "__dict__")
    assert not issubclass(SecretRandomness, Seed)


def test_registry_refuses_doubles_and_suggests():
    table = Registry("animal")
    table.register("horse")(1)
    table.register("cow")(2)
    assert list(table) == ["cow", "horse"]
    assert "pig" not in table
    with pytest.raises(ValueError, match="twice"):
        table.register("cow")(3)
    with pytest.raises(ConfigError, match="did you mean 'horse'") as caught:
        table["hors"]
    assert caught.value.expected == "one of cow, horse"


def test_missing_extra_names_the_install_command():
    with pytest.raises(MissingExtra, match=r"pip install 'edgeward\[fl\]'"):
        require("surely_not_installed_here", extra="fl")
    assert require("json", extra="x") is json


def test_threat_lists_all_its_problems():
    with pytest.raises(ConfigError) as caught:
        MembershipInference(shadows=3, canaries=2, access="timing")
    assert all(word in str(caught.value) for word in ("shadows = 3", "canaries = 2", "access = 'timing'"))
    threat = MembershipInference(shadows=4, canaries=10, kinds=("natural", "twins"))
    assert ([k.slug for k in threat.planted], [k.slug for k in threat.natural]) == (["twins"], ["natural"])
    assert threat.to_json()["kinds"] == ["twins", "natural"]
