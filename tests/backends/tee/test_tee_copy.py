"""The copy between worlds: exact for every length and alignment, and cheap enough on the processor it is for."""

import numpy as np
import pytest

from edgeward.backends.tee.build import fixed_source
from edgeward.codegen.emit import Program
from edgeward.codegen.meter import count
from edgeward.codegen.native_run import NativeProgram

_NET = """
#include "copy.h"
int edgeward_net_run(const uint8_t *weights, const int8_t *const *inputs, int8_t *const *outputs, uint8_t *arena) {{
    (void)weights, (void)arena;
    edgeward_wipe(outputs[0], {cleared});
    edgeward_copy(outputs[0] + {to}, inputs[0] + {begin}, {size});
    edgeward_wipe(outputs[0] + {wiped}, {wipes});
    return 0;
}}
"""


def copying(size, to=0, begin=0, wiped=0, wipes=0, cleared=0):
    """A program that copies `size` bytes between the given offsets and then wipes some; `cleared` zeroes come first."""
    text = _NET.format(size=size, to=to, begin=begin, wiped=wiped, wipes=wipes, cleared=cleared)
    room = cleared or size
    return Program({"copy.h": fixed_source("copy.h"), "net.c": text}, 0, 0, (room,), (room,))


@pytest.mark.parametrize(
    ("size", "to", "begin"), [(0, 0, 0), (1, 3, 2), (7, 1, 0), (63, 5, 9), (64, 0, 1), (200, 17, 3)]
)
def test_copies_exactly_what_it_says(size, to, begin):
    x = np.random.default_rng(size).integers(-128, 128, (1, 256), dtype=np.int8)
    expected = np.zeros(256, np.int8)
    expected[to : to + size] = x[0, begin : begin + size]
    expected[250:253] = 0
    (found,) = NativeProgram(copying(size, to, begin, 250, 3, cleared=256), b"")(x)
    np.testing.assert_array_equal(found[0], expected)


def test_costs_less_than_half_an_instruction_per_byte():
    pytest.importorskip("unicorn")
    x = np.random.default_rng(0).integers(-128, 128, (1, 65536), dtype=np.int8)
    counted = count(copying(65536), [x], b"")
    np.testing.assert_array_equal(counted.outputs[0].reshape(-1), x[0])
    assert counted.total / 65536 <= 0.41
