"""Energy of one inference: at the board for a device profile, and a physical lower bound for the arithmetic alone."""

from __future__ import annotations

from collections.abc import Iterable

from edgeward.devices import DeviceProfile, Figure
from edgeward.measure.work import Work

ADD_INT8_45NM = 0.03e-12
ADD_FLOAT32_45NM = 0.9e-12
MULTIPLY_INT8_45NM = 0.2e-12
MULTIPLY_FLOAT32_45NM = 3.7e-12
"""Joules of one operation at 45 nm and 0.9 V (Horowitz, ISSCC 2014, figure 1.1.9; secondary tables agree)."""


def board_energy_joules(seconds: float, device: DeviceProfile) -> Figure:
    """Return the energy the whole device draws in `seconds` of computing: E = P t, in joules.

    P is the profile's active power; microcontroller profiles state it as board energy per int8 MAC (180 to 770 pJ),
    which is 1000 times the arithmetic itself: instructions and memory dominate.
    """
    power = device.active_power_watt()
    return Figure(power.value * seconds, power.source, power.basis)


def arithmetic_energy_joules_45nm(work: Iterable[Work]) -> float:
    """Lower bound, 45 nm: joules of the multipliers and adders alone, without memory, control or idle power.

    float32: 3.7 + 0.9 pJ per MAC. Integers: the int8 multiplier (0.2 pJ) scaled with the product of the widths and the
    int8 adder (0.03 pJ) with the wider one. Never a device's energy: boards need hundreds of times more.
    Source: Horowitz, "Computing's energy problem", ISSCC 2014.

    >>> round(arithmetic_energy_joules_45nm([Work(1, 8, 8)]) * 1e12, 3)
    0.23
    """
    return sum(w.macs * _mac_energy_45nm(w.weight_bits, w.activation_bits) for w in work)


def _mac_energy_45nm(weight_bits: int, activation_bits: int) -> float:
    if max(weight_bits, activation_bits) >= 32:
        return MULTIPLY_FLOAT32_45NM + ADD_FLOAT32_45NM
    multiply = MULTIPLY_INT8_45NM * weight_bits * activation_bits / 64
    return multiply + ADD_INT8_45NM * max(weight_bits, activation_bits) / 8
