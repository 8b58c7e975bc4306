"""A product of two shared matrices, beside CrypTen and SPU."""

from benchmarks.mpc_compare import compare, headline
from benchmarks.mpc_parties import measured
from benchmarks.mpc_play import FixedMatmulPlay, MatmulPlay, shares
from benchmarks.mpc_task import matmul_task

NAME = "mpc-matmul"
DESCRIPTION = "512^3 product of two secret matrices, truncated: ours against CrypTen and SPU SEMI2K"

_SIDE, _REPEATS = 512, 25
_TARGETS = {"online": 5.0}


def run() -> dict:
    """Time ours and the peers.

    `product_alone` leaves the truncation to the layer that follows, as a network does. In `one_factor_fixed` the second
    factor's mask is opened once before all runs, as for weights: half of the products are then done in advance.
    """
    task = matmul_task(_SIDE)
    x, y = (shares(task.arrays[name]) for name in ("x", "y"))
    found = compare(MatmulPlay(x, y), task, _REPEATS)
    found["rows"]["product_alone"] = measured(MatmulPlay(x, y, truncated=False), task.with_repeats(_REPEATS))
    found["rows"]["one_factor_fixed"] = measured(FixedMatmulPlay(x, y), task.with_repeats(_REPEATS))
    return {"name": NAME, "description": DESCRIPTION, **headline(found, _TARGETS), **found}
