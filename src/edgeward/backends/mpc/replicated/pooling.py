"""The largest value of each window of a shared image, and clipping to public bounds, among three parties."""

from __future__ import annotations

import numpy as np

from edgeward.backends.mpc.protocols.comparison_layout import Layout
from edgeward.backends.mpc.protocols.linear_map import Shape
from edgeward.backends.mpc.protocols.pooling import max_pool_demands, tournaments
from edgeward.backends.mpc.protocols.window import Window
from edgeward.backends.mpc.replicated.activation import relu, relu_moves
from edgeward.backends.mpc.replicated.member import Member, Replicated
from edgeward.backends.mpc.replicated.schedule import Moves
from edgeward.backends.mpc.ring import Ring


def max_pool_moves(ring: Ring, x: Shape, window: Window, layout: Layout, label: str = "") -> Moves:
    """Return what `max_pool` sends: a ReLU for each level of its tournaments."""
    demands = enumerate(max_pool_demands(x, window, layout))
    return tuple(move for i, demand in demands for move in relu_moves(ring, demand.count, 0, layout, f"{label}/{i}"))


def max_pool(member: Member, x: Replicated, window: Window, layout: Layout, label: str = "max_pool") -> Replicated:
    """Return shares of the largest value of each window, in tournaments: max(u, v) = v + relu(u - v).

    Needs |x| < 2^(width-2); padded places count as the least such value. Guarantee: see `Member`. Cost:
    `max_pool_moves`.
    """
    ring, values, level = member.ring, x, 0
    least = [-(1 << (layout.width - 2)) if first else 0 for first in member.firsts]
    for part in tournaments(window, x.shape):
        own, following = part.gather(values.own, least[0], ring), part.gather(values.next, least[1], ring)
        while own.shape[-1] > 1:
            pairs = own.shape[-1] // 2
            sides = [(share[..., :pairs], share[..., pairs : 2 * pairs]) for share in (own, following)]
            first, second = (ring.wrap(u - v) for u, v in sides)
            apart = Replicated(first, second, x.fraction)
            above = relu(member, apart, 0, layout, f"{label}/{level}")
            own, following = (
                np.concatenate([ring.wrap(v + over), share[..., 2 * pairs :]], axis=-1)
                for (_, v), over, share in zip(sides, (above.own, above.next), (own, following), strict=True)
            )
            level += 1
        values = Replicated(np.ascontiguousarray(own[..., 0]), np.ascontiguousarray(following[..., 0]), x.fraction)
    return values


def clip(
    member: Member, x: Replicated, bounds: tuple[float, float], shift: int, layout: Layout, label: str = "clip"
) -> Replicated:
    """Return shares of min(max(t, low), high) = low + relu(t - low) - relu(t - high), both in the same rounds.

    t = x / 2^shift. Guarantee: see `Member`. Cost: `relu_moves` of twice the count.
    """
    ring, short = member.ring, x.fraction - shift
    low, high = (Ring(ring.bits, x.fraction).encode(np.array([bound]))[0] for bound in bounds)
    least = Ring(ring.bits, short).encode(np.array([bounds[0]]))[0]
    flat = [
        np.concatenate([share.reshape(-1) - low * first, share.reshape(-1) - high * first])
        for share, first in zip((x.own, x.next), map(ring.dtype.type, member.firsts), strict=True)
    ]
    both = relu(member, Replicated(ring.wrap(flat[0]), ring.wrap(flat[1]), x.fraction), shift, layout, label)
    parts = [
        ring.wrap(share[: x.own.size] - share[x.own.size :] + least * first).reshape(x.shape)
        for share, first in zip((both.own, both.next), map(ring.dtype.type, member.firsts), strict=True)
    ]
    return Replicated(parts[0], parts[1], short)
