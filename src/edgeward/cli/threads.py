"""How many threads the built-in job computes with."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread inside, unless `OMP_NUM_THREADS` asks for another number.

    The operations of small networks last about a millisecond. Threads that share one wait for each other by spinning,
    and on a machine that others use too, the waiting costs several times the work.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(before if os.environ.get("OMP_NUM_THREADS") else 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
