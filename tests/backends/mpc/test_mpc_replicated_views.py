"""Three parties: what comes while rows are computed hides under masks that nothing else the receiver has lifts."""

import threading
from collections import defaultdict
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from backends.mpc.test_mpc_replicated import ran
from edgeward.backends.mpc.protocols.softmax import Softmax
from edgeward.backends.mpc.protocols.standardize import Standardization
from edgeward.backends.mpc.replicated import member as members
from edgeward.backends.mpc.replicated.member import Replicated
from edgeward.backends.mpc.replicated.softmax import softmax
from edgeward.backends.mpc.replicated.standardize import standardize
from edgeward.backends.mpc.ring import Ring

RING, ROWS, COLUMNS = Ring(64, 16), 1300, 3
SOFTMAX, NORM = Softmax(ROWS, COLUMNS, 0, 16), Standardization(ROWS, COLUMNS, 16, 1e-5)
# What has fewer bits than its type.
SOFTMAX_BITS = {"max/split/choice": 7, "max/largest": 7, "rows/split/top": 38}
SOFTMAX_BITS["inverse/truncate/split/top"] = SOFTMAX.reciprocal.drop
NORM_BITS = {"rows/split/top": 2, "inverse/truncate/split/top": NORM.inverse_root.drop}


def alike(one, other):
    """Return whether one array could be drawn from the same bytes of a key as the other."""
    return one.size == other.size and one.dtype == other.dtype


def uniform(data, width):
    """Return the least p of the lowest and the highest 7 of `width` bits being uniform."""
    size, least = min(1 << width, 128), 1.0
    for place in {0, max(0, width - 7)}:
        content = (data.reshape(-1) >> data.dtype.type(place)) & data.dtype.type(size - 1)
        least = min(least, stats.chisquare(np.bincount(content.astype(np.int64), minlength=size)).pvalue)
    return least


@pytest.mark.parametrize(("run", "what", "bits"), [(softmax, SOFTMAX, SOFTMAX_BITS), (standardize, NORM, NORM_BITS)])
def test_no_message_loses_its_mask_to_two_others_or_to_what_the_receiver_draws(run, what, bits, monkeypatch):
    """All shares and values are constants, so that masks alone make anything look uniform."""
    drawn, real = defaultdict(list), members.expand_fields

    def watched(key, place, fields):
        arrays = real(key, place, fields)
        drawn[threading.current_thread().name].append((fields[0].name, arrays[fields[0].name]))
        return arrays

    monkeypatch.setattr(members, "expand_fields", watched)
    parts = [np.full((ROWS, COLUMNS), part, np.uint64) for part in (3 << 16, 2**63, 2**63)]
    parts[0][:, 1] = 2 << 16
    shares = [Replicated(parts[i], parts[(i + 1) % 3], 16) for i in range(3)]
    _, _, received = ran(RING, lambda member, x: run(member, x, what, "run"), shares)
    names = [threading.current_thread().name, "edgeward-party-1", "edgeward-party-2"]
    compared = 0
    for name, messages in zip(names, received, strict=True):
        came = [(message.label, message.array.reshape(-1)) for message in messages]
        known = came + [(label, array.reshape(-1)) for label, array in drawn[name]]
        for label, data in came:
            width = bits.get(label.removeprefix("run/"), 8 * data.dtype.itemsize)
            limit = data.dtype.type((1 << width) - 1)
            assert data.max() <= limit, label
            if data.size < 5 * min(1 << width, 128):
                continue
            others = [pair for pair in known if pair[1] is not data and alike(pair[1], data)]
            nothing = ("nothing", np.zeros_like(data))
            assert uniform(data, width) > 1e-9, label
            for (first, one), (second, two) in combinations([*others, nothing], 2):
                compared += 1
                for left in (data - one - two, data - one + two, data + one - two, data ^ one ^ two):
                    assert uniform(left & limit, width) > 1e-9, (label, first, second)
    assert compared > 100
