"""Functions of shared values: look-ups against CrypTen's iterations on the same primitives, in one process."""

import math
import time
from functools import partial

import numpy as np

from edgeward.backends.mpc.offline.tuples import Dealer
from edgeward.backends.mpc.protocols.curve import FUNCTIONS
from edgeward.backends.mpc.protocols.curved import Curved, curved
from edgeward.backends.mpc.protocols.exponential import exponential, exponential_between
from edgeward.backends.mpc.protocols.inverse import Inverse, inverse
from edgeward.backends.mpc.protocols.iterations import Iterated, iterate
from edgeward.backends.mpc.protocols.presets import SHAPES, tailed
from edgeward.backends.mpc.protocols.softmax import Softmax, softmax
from edgeward.backends.mpc.protocols.standardize import Standardization, standardize
from edgeward.backends.mpc.protocols.truncation import Truncation, truncate
from edgeward.backends.mpc.rehearsal import run_two
from edgeward.backends.mpc.ring import Ring
from edgeward.backends.mpc.sharing import reconstruct, share

NAME = "mpc-curves"
DESCRIPTION = "exp, inverses, activations, softmax and layer norm on shares: rounds, bytes, error, against iterations"

_RING = Ring(64, 16)
_COUNT = 10_000
_ROWS, _COLUMNS = 100, 100


def _measured(x, demands, program, right):
    """Return counts per value and the largest error relative to max(1, |right|) of one run with fresh material."""
    dealer, shares = Dealer(_RING), share(_RING, _RING.encode(x))
    start = time.perf_counter()
    supplies = dealer.supplies(demands)
    drawn = [[supply.draw(demand) for demand in demands] for supply in supplies]
    dealt = time.perf_counter()
    outcome = run_two(_RING, lambda party: program(party, shares[party.number], drawn[party.number]))
    ended = time.perf_counter()
    y = _RING.decode(reconstruct(_RING, *outcome.results), outcome.results[0].fraction)
    true = right(_RING.decode(_RING.encode(x)))
    return {
        "rounds": outcome.meters[0].rounds,
        "bytes": outcome.meters[0].sent / x.size,
        "offline_bytes": sum(demand.offline_bytes(_RING) for demand in demands) / x.size,
        "largest_error": float((np.abs(y - true) / np.maximum(1, np.abs(true))).max()),
        "seconds": ended - dealt,
        "dealing_seconds": dealt - start,
    }


def _iterated(what, party, x, materials):
    return iterate(party, x, what, materials)


def _truncated(protocol, demands, drop):
    """Return the protocol with its long result truncated, and its material."""
    count = demands[0].count
    material = (*demands, Truncation(count, drop))
    return material, lambda p, s, m: truncate(p, protocol(p, s, m[:-1]), m[-1])


def _exp(x):
    demand = exponential_between(_RING, x.size, float(x.min()), float(x.max()) + 1e-3, 18)
    places = demand.scale + demand.power
    return _truncated(lambda p, s, m: exponential(p, s.elements, m[0]), [demand], places - 16)


def _inverse(name):
    def build(x):
        what = Inverse(name, x.size, 16, 8, 24, 16, 10 if name == "reciprocal" else 16)
        return what.demands(_RING), lambda p, s, m: inverse(p, s, what, m)

    return build


def _activation(name):
    def build(x):
        demand = Curved(x.size, 0, tailed(name, _RING))
        return [demand], lambda p, s, m: curved(p, s, m[0])

    return build


def _softmax(x):
    what = Softmax(*x.shape, 0, 16)
    return _truncated(lambda p, s, m: softmax(p, s, what, m), what.demands(_RING), what.result_fraction - 16)


def _standardized(x):
    what = Standardization(*x.shape, 16, 1e-5)
    return _truncated(lambda p, s, m: standardize(p, s, what, m), what.demands(_RING), what.result_fraction - 16)


def _right_softmax(x):
    terms = np.exp(x - x.max(axis=1, keepdims=True))
    return terms / terms.sum(axis=1, keepdims=True)


def _right_standardized(x):
    return (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-5)


def _right(name):
    if name.startswith("hard_"):
        gate = "hard_sigmoid"
        return lambda x: np.clip(FUNCTIONS[gate](x), 0, 1) * (x if name == "hard_swish" else 1)
    return FUNCTIONS[name]


def _cases():
    """Yield name, values, the right function and what runs, ours first."""
    draws = np.random.default_rng(0)
    small, wide = np.linspace(-8, 0, _COUNT), np.exp(np.linspace(math.log(0.1), math.log(100), _COUNT))
    yield "exp", small, np.exp, _exp
    for name, right in (("reciprocal", lambda x: 1 / x), ("inverse_root", lambda x: x**-0.5), ("logarithm", np.log)):
        yield name, wide, right, _inverse(name)
    for name in SHAPES:
        yield name, np.linspace(-16, 16, _COUNT), _right(name), _activation(name)
    rows = draws.normal(size=(_ROWS, _COLUMNS)) * 3
    yield "softmax", rows, _right_softmax, _softmax
    yield "standardize", rows, _right_standardized, _standardized


def _mean(values):
    """Return the geometric mean."""
    return math.prod(values) ** (1 / len(values))


def run() -> dict:
    """Run every function once; the ratio is that of the rounds over the functions that both compute."""
    ours, theirs = {}, {}
    for name, x, right, build in _cases():
        ours[name] = _measured(x, *build(x), right)
        if name in ("exp", "reciprocal", "inverse_root"):
            what = Iterated(name, x.size)
            theirs[name] = _measured(x, what.demands(_RING), partial(_iterated, what), right)
    return summary(ours, theirs)


def summary(ours, theirs) -> dict:
    """Return the result of the rows of both, by function."""
    ours_rounds, peer_rounds = (_mean([rows[name]["rounds"] for name in theirs]) for rows in (ours, theirs))
    return {
        "name": NAME,
        "description": DESCRIPTION,
        "ratio": peer_rounds / ours_rounds,
        "ours": ours_rounds,
        "peer": peer_rounds,
        "unit": "rounds",
        "peer_name": "CrypTen's iterations on our primitives; geometric means over what both compute",
        "functions": {"ours": ours, "peer": theirs},
        "units": "bytes per value sent by each party and, offline, by the dealer; error over max(1, |y|)",
        "kind": "simulated: both parties and the dealer in one process; seconds without a network",
        "accurate": all(row["largest_error"] < 2.0**-12 for row in ours.values()),
    }
