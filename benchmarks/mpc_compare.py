"""Ours beside the peers on one task: ratios of time and bytes, errors, targets."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from benchmarks.mpc_parties import figures, run_play
from benchmarks.mpc_play import ExchangePlay, Play
from benchmarks.mpc_task import Task
from benchmarks.peers.environments import PEERS
from benchmarks.peers.measure import at
from edgeward.core.errors import UserError

REPEATS, PEER_REPEATS = 7, 3
TRUST = "semi-honest, static, one of two parties; the dealer (peers: the first party) is trusted for the random tuples"


def compare(play: Play, task: Task, repeats: int | None = None) -> dict[str, Any]:
    """Run ours without and with TLS and every installed peer, one after the other; return rows and ratios.

    Seconds are the best of several runs (`repeats` of all, where given), medians stand beside them. Ours has its tuples
    dealt before ("online") or counted in ("with_preprocessing": dealing, delivering and preparing, one after the
    other); a peer makes its tuples while it runs, so its one time stands against both. `seconds_messages_alone` is the
    floor under ours: the same messages without any computing; `seconds_busy` is what a party's processor worked.
    Raises: `UserError` where CrypTen is not installed.
    """
    if not PEERS["crypten"].installed:
        raise UserError(
            "this benchmark compares with CrypTen, which is not installed",
            expected=str(PEERS["crypten"].folder),
            fix="python -m benchmarks.peers --install",
        )
    load = os.getloadavg()[0]
    plain = run_play(play, repeats or REPEATS)
    messages = run_play(ExchangePlay(tuple(plain.sent.values())), repeats or REPEATS)
    rows: dict[str, dict[str, Any]] = {
        "ours": figures(plain, task),
        "ours_tls": figures(run_play(play, repeats or REPEATS, tls=True), task, tls=True),
    }
    rows["ours"]["seconds_messages_alone"] = messages.best("online")
    for name, peer in PEERS.items():
        rows[name] = at(peer, task.with_repeats(repeats or PEER_REPEATS))
        if name == "crypten" and "seconds" not in rows[name]:
            raise UserError("CrypTen did not run", came=rows[name].get("failed", "no figures"), fix="install it anew")
    against = {name: ratios(rows["ours"], rows[name]) for name in PEERS if "seconds" in rows[name]}
    return {"rows": rows, "ratios": against, "load_average_before": load, "adversary": TRUST}


def ratios(mine: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the peer's figures over ours: above 1 is better for us."""
    return {
        "online": other["seconds"] / mine["seconds"],
        "online_median": other["seconds_median"] / mine["seconds_median"],
        "with_preprocessing": other["seconds"] / mine["seconds_with_preprocessing"],
        "bytes": other["bytes"] / mine["bytes"] if other["bytes"] else None,
        "rounds": other["rounds"] / mine["rounds"] if other["rounds"] else None,
    }


def headline(found: Mapping[str, Any], targets: Mapping[str, float]) -> dict[str, Any]:
    """Return what the harness asks for, against CrypTen; `targets` are least ratios by their names in `ratios`."""
    mine, theirs, ratio = found["rows"]["ours"], found["rows"]["crypten"], found["ratios"]["crypten"]
    met = {name: ratio[name] >= least for name, least in targets.items()}
    met["error"] = mine["max_error"] <= theirs["max_error"]
    if "spu" in found["ratios"]:
        met["faster_than_spu"] = found["ratios"]["spu"]["online"] > 1
    return {
        "ours": mine["seconds"],
        "peer": theirs["seconds"],
        "unit": "s",
        "ratio": ratio["online"],
        "peer_name": PEERS["crypten"].title,
        "targets": dict(targets),
        "targets_met": met,
    }
