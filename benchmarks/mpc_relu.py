"""A rectifier on a million shared numbers, beside CrypTen and SPU."""

from benchmarks.mpc_compare import compare, headline
from benchmarks.mpc_play import ReluPlay, shares
from benchmarks.mpc_task import relu_task

NAME = "mpc-relu"
DESCRIPTION = "max(x, 0) of 1,000,000 shared numbers, two processes on loopback: ours against CrypTen and SPU SEMI2K"

_ELEMENTS = 1_000_000
_TARGETS = {"online": 20.0, "bytes": 10.0}


def run() -> dict:
    """Time ours and the peers; the result must be exact."""
    task = relu_task(_ELEMENTS)
    found = compare(ReluPlay(shares(task.arrays["x"])), task)
    result = {"name": NAME, "description": DESCRIPTION, **headline(found, _TARGETS), **found}
    result["targets_met"]["exact"] = found["rows"]["ours"]["exact"]
    return result
