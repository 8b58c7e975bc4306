"""Which row of the table of splits is chosen for each target, and whether the holdout bears it out."""

import math

BAR, NEAR, OVERHEAD, GAP = 1.05, 0.02, 0.01, 0.186


def shielded(table: dict) -> float:
    """Return the ratio of the row at the black-box level, or our lowest where none is there; NaN without rows."""
    chosen = table["targets"]["black_box_level"]["row"]
    found = [r for r in table["rows"] if r["strategy"] == chosen] or [r for r in table["rows"] if _is_ours(r)]
    return min(map(ratio_of, found), default=math.nan)


def targets(rows: list, victim: dict) -> dict:
    """Return which row is chosen for each target on `choosing` records, and whether the holdout bears it out."""
    ours = [r for r in rows if _is_ours(r)]
    near = [r for r in ours if r["accuracy_choosing"] >= victim["choosing"] - NEAR]
    light = min((r for r in near if r["overhead_batch"] <= OVERHEAD), key=_least, default=None)
    # the whole network inside is the yardstick itself: it meets the level whatever ours do
    level = min((r for r in near if ratio_of(r, "choosing") <= BAR), key=_least, default=None)
    gaps = {r["strategy"]: r["audit"]["gap"] for r in ours if r["audit"]["gap"] is not None}

    def kept(row: dict | None) -> bool:
        return row is not None and row["accuracy"] >= victim["holdout"] - NEAR

    return {
        "low_overhead": {"row": light and light["strategy"], "met": kept(light)},
        "black_box_level": {
            "row": level and level["strategy"],
            "met": kept(level) and ratio_of(level) <= BAR,
            "shown": level and level["audit"]["standing"],
        },
        "gap": {"gaps": gaps, "met": max(gaps.values(), default=0.0) >= GAP},
    }


def _least(row: dict) -> float:
    return row["overhead_batch"]


def _is_ours(row: dict) -> bool:
    return row["overhead_batch"] is not None and row["strategy"].startswith("mirrornet")


def ratio_of(row: dict, by: str = "ratio_to_black_box") -> float:
    """Return the worst ratio of a row over its budgets."""
    return max((b[by]["value"] for b in row["stealing"]), default=1.0)


def unshielded(row: dict) -> float:
    """Return what an unprotected network gives over the black box, at the worst budget."""
    return max(b["no_shield"]["value"] / b["black_box"]["value"] for b in row["stealing"])
