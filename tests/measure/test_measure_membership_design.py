"""The design of an audit: who trains on what, for every mix of kinds."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeward.core.errors import ConfigError
from edgeward.core.randomness import Seed
from edgeward.core.record_kind import KINDS
from edgeward.core.threat import MembershipInference
from edgeward.data.making import make_splits
from edgeward.data.records import Records
from edgeward.measure.membership_design import design


@pytest.fixture(scope="module")
def splits():
    rng = np.random.default_rng(0)
    records = Records.of(rng.normal(size=(160, 3)), rng.integers(0, 3, 160), "all")
    members, others = records.subset(range(120)), records.subset(range(120, 160))
    return make_splits(members, others, canaries=24, seed=Seed(1), name="design")


@settings(max_examples=60, deadline=None)
@given(st.sets(st.sampled_from(sorted(KINDS)), min_size=1), st.sampled_from([4, 6, 16]), st.integers(0, 2**40))
def test_every_record_is_in_half_of_its_models_and_nothing_planted_ships(splits, kinds, shadows, seed):
    threat = MembershipInference(shadows=shadows, canaries=24, kinds=tuple(kinds))
    exposed = torch.tensor([3, 7, 9, 50])
    plan = design(splits, threat, Seed(seed), exposed)
    n = len(splits.train)
    assert {p.kind.slug for p in plan.panels} == kinds
    assert len(plan.members) == 1 + shadows * (bool(threat.planted) + bool(threat.natural))
    assert bool(plan.members[-1, :n].all())
    assert not bool(plan.members[-1, n:].any())
    for panel in plan.panels:
        keep = plan.keep(panel)
        assert keep.shape == (shadows, len(panel.rows))
        assert bool((keep.sum(0) == shadows // 2).all())
        for number in panel.group.unique():
            together = keep[:, panel.group == number]
            assert bool((together == together[:, :1]).all())
        if panel.kind.planted:
            assert not bool(plan.members[panel.models][:, splits.canary_sources].any())
            others = torch.ones(n, dtype=torch.bool)
            others[splits.canary_sources] = False
            assert bool(plan.members[panel.models][:, :n][:, others].all())
        else:
            assert not bool(plan.members[panel.models][:, n:].any())
    assert torch.equal(plan.x[:n], splits.train.x)
    assert torch.equal(plan.y[:n], splits.train.y)


def test_exposed_records_are_the_ones_given(splits):
    threat = MembershipInference(shadows=4, canaries=24, kinds=("exposed",))
    assert design(splits, threat, Seed(0), torch.tensor([5, 8])).panels[0].rows.tolist() == [5, 8]
    assert design(splits, threat, Seed(0)).panels == ()


@pytest.mark.parametrize("kinds", [(), ("canaries",)])
def test_a_threat_without_a_known_kind_is_refused(kinds):
    with pytest.raises(ConfigError, match=r"kind"):
        MembershipInference(kinds=kinds)
