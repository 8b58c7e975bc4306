"""A plan as JSON: what the model's owner sends to the owner of the records, who has no network to lower."""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from edgeward.backends.mpc.inference import steps_attention, steps_linear, steps_local, steps_math, steps_nonlinear
from edgeward.backends.mpc.inference.plan import Plan
from edgeward.backends.mpc.inference.step import Secret
from edgeward.backends.mpc.protocols.comparison_layout import Layout
from edgeward.backends.mpc.protocols.linear import Use
from edgeward.backends.mpc.protocols.linear_map import Convolution, Dense
from edgeward.backends.mpc.protocols.window import Window
from edgeward.backends.mpc.protocols.winograd import Winograd
from edgeward.backends.mpc.ring import Ring
from edgeward.core.errors import ConfigError, DataError

FORMAT = 1
_KINDS: Mapping[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        *(Plan, Ring, Layout, Window, Secret, Use, Dense, Convolution, steps_linear.Gain, steps_linear.LinearStep),
        *(steps_nonlinear.TruncateStep, steps_nonlinear.ReluStep, steps_nonlinear.ClipStep),
        *(steps_nonlinear.MaxPoolStep, steps_nonlinear.ProductStep, steps_local.SumStep),
        *(steps_local.SecretShiftStep, steps_local.PublicShiftStep, steps_local.PublicGainStep),
        *(steps_local.MeanStep, steps_local.AveragePoolStep, steps_local.MoveStep),
        *(Winograd, steps_local.AdaptivePoolStep, steps_nonlinear.SpreadProductStep),
        *(steps_math.CurveStep, steps_math.SoftmaxStep, steps_math.StandardizeStep),
        *(steps_attention.MatrixStep, steps_attention.SecretValueStep),
    )
}
_NUMBERS_LIMIT = 1 << 40


def write_plan(plan: Plan) -> str:
    """Return `plan` as JSON; it holds no tensor of the model."""
    return json.dumps({"format": FORMAT, "plan": _plain(plan)})


def read_plan(text: str) -> Plan:
    """Return the plan of `write_plan`; equal plans have equal digests.

    Guarantee: only classes of plans are built, from values of their types, and no code is run. Whether the plan is
    the agreed network is not checked: compare digests or read the steps. Raises: `DataError`.
    """
    try:
        stored = json.loads(text)
        if not isinstance(stored, dict) or stored.get("format") != FORMAT:
            raise DataError("not a plan", expected=f"a plan of format {FORMAT}", came=text[:40])
        plan: Plan = _built(stored.get("plan"), Plan)
    except (ValueError, TypeError, RecursionError, ConfigError) as error:
        raise DataError("this plan cannot be read", expected="the text of `write_plan`", came=str(error)) from error
    return plan


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        parts = {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
        return {"kind": type(value).__name__, **parts}
    return [_plain(part) for part in value] if isinstance(value, tuple) else value


def _built(stored: Any, wanted: Any) -> Any:
    """Return the value of type `wanted` that `stored` describes. Raises: `TypeError`."""
    if get_origin(wanted) is tuple:
        kinds = get_args(wanted)
        if isinstance(stored, list) and len(kinds) == 2 and kinds[1] is Ellipsis:
            return tuple(_built(part, kinds[0]) for part in stored)
        if isinstance(stored, list) and len(stored) == len(kinds):
            return tuple(_built(part, kind) for part, kind in zip(stored, kinds, strict=True))
    elif wanted is Any:
        if isinstance(stored, list):
            return tuple(_built(part, Any) for part in stored)
        if isinstance(stored, int):
            return _built(stored, int)
    elif wanted in (int, float, bool, str):
        if type(stored) is wanted and (wanted is not int or abs(stored) < _NUMBERS_LIMIT):
            return stored
    elif isinstance(stored, dict) and isinstance(wanted, type) and not isinstance(wanted, types.GenericAlias):
        kind: Any = _KINDS.get(str(stored.get("kind")))
        if kind is not None and issubclass(kind, wanted):
            hints = {field.name: get_type_hints(kind)[field.name] for field in fields(kind)}
            if stored.keys() == {"kind", *hints}:
                return kind(**{name: _built(stored[name], hint) for name, hint in hints.items()})
    raise TypeError(f"no {getattr(wanted, '__name__', wanted)} in {str(stored)[:60]}")
