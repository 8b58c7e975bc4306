"""Material with chosen clear values, for trying a protocol on every mask."""

import numpy as np

from edgeward.backends.mpc.offline.demand import Field
from edgeward.backends.mpc.offline.tuples import Material
from edgeward.backends.mpc.rehearsal import run_two


def chosen(ring, demand, values, seed=0, kept=None):
    """Return both parties' material for `demand`, its uniform fields set to `values` where given."""
    draws = np.random.default_rng(seed)
    fields = demand.fields(ring)

    def uniform(field):
        raw = draws.integers(0, 256, size=field.bytes, dtype=np.uint8).view(field.dtype).reshape(field.shape)
        return Field(field.name, field.shape, field.bits, False).combine(raw, np.zeros_like(raw))

    own = {f.name: np.stack([uniform(f), uniform(f)]) for f in fields if f.form == "own"}
    clear = {f.name: values.get(f.name, uniform(f)) for f in fields if not f.dependent} | own
    clear |= demand.complete(ring, clear, kept or {})
    first = {f.name: clear[f.name] if f.form == "common" else uniform(f) for f in fields}
    second = {f.name: f.remainder(clear[f.name], first[f.name]) for f in fields if f.form != "own"}
    first |= {name: parts[0] for name, parts in own.items()}
    second |= {name: parts[1] for name, parts in own.items()}
    return tuple(Material(demand, 0, arrays) for arrays in (first, second))


def play(ring, demand, values, program, seed=0):
    """Run `program(party, material)` as both parties."""
    materials = chosen(ring, demand, values, seed)
    return run_two(ring, lambda party: program(party, materials[party.number]))
