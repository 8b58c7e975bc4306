"""The captured networks of the operator table, each captured once per test process."""

import functools

from backends.operator_table import Case
from edgeward.graph import Network, capture


@functools.cache
def captured(case: Case) -> Network:
    """Capture a case of the table."""
    return capture(case.module, case.input_shape)
