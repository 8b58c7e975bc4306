"""Recovery of disguised weights with a public prior: which row is which kernel, behind which mask, at which scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias, final

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int
from scipy.optimize import linear_sum_assignment
from scipy.stats import beta
from torch import Tensor

from edgeward.attacks.extraction.exposure import Exposure, Obfuscation, learned_keys, reordered_inputs

SIGNIFICANCE = 0.01
"""A kernel counts as recovered when chance gives as good a match to any kernel of its layer less often than this."""

Metric: TypeAlias = Literal["l2", "cosine"]


@final
@dataclass(frozen=True)
class RecoveredTensor:
    """How much of one tensor came back: `matched` of `rows` rows; `cosine` to the prior is their mean (0 for none)."""

    key: str
    rows: int
    matched: int
    cosine: float
    method: str

    def to_json(self) -> dict[str, Any]:
        """Return the plain form."""
        return asdict(self)


@final
@dataclass(frozen=True, eq=False)
class Recovery:
    """The tensors the attacker works with, in the architecture's order and shape, and what was recovered of each.

    Tensors that nothing was recovered of are absent: the attacker treats them as hidden. `missing` marks the entries
    that a tensor lacks because they live elsewhere.
    """

    tensors: dict[str, Tensor]
    layers: tuple[RecoveredTensor, ...] = ()
    missing: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Rows recovered of all disguised rows; 1 where nothing was disguised."""
        rows = sum(layer.rows for layer in self.layers)
        return sum(layer.matched for layer in self.layers) / rows if rows else 1.0


@final
@dataclass(frozen=True, eq=False)
class Match:
    """For each of O kernels: its row, the row of its mask (-1: none), the cosine to the prior, and if it is credible.

    `kernels` [O, d] are the rows without their masks.
    """

    rows: Int[np.ndarray, " O"]
    masks: Int[np.ndarray, " O"]
    cosine: Float64[np.ndarray, " O"]
    credible: Bool[np.ndarray, " O"]
    kernels: Float64[np.ndarray, "O d"]


def recover(exposure: Exposure) -> Recovery:
    """Undo, as far as the public prior allows, every disguise of the visible tensors.

    Per weight: candidates are the rows, or rows minus one of the mask rows that passes ShadowNet's mask test; linear
    assignment gives them to the prior's kernels on L2 distance (unscaled only) and on cosine, and the metric with more
    credible kernels is kept; factors follow by least squares. A recovered order is applied to the inputs of the weights
    that follow it and to the layer's bias. Entries that were zeroed, and unmatched rows, come from the prior.

    Guarantee: measured for this attack only; a stronger one may recover more. Cost: O(rows^2 kernels) per masked layer.
    Source: tests of the masks and L2 matching as in TEESlice's study (Zhang et al., S&P'24); directions: ArrowMatch
    (USENIX Sec'25); GroupCover (ICML'24) on the fragility of such randomness.
    """
    orders: dict[str, Int[np.ndarray, " O"]] = {}
    tensors: dict[str, Tensor] = {}
    missing: dict[str, Tensor] = {}
    report: list[RecoveredTensor] = []
    followed = {m.inputs for m in exposure.masked.values() if m.inputs is not None}
    biases = _biases(exposure)
    for key in (key for key in learned_keys(exposure.architecture) if key in exposure.visible):
        visible = exposure.visible[key]
        how, prior = exposure.masked.get(key), exposure.public.get(key)
        if how is None:
            tensors[key] = visible
            continue
        if key in biases:
            continue
        current, known = visible, True
        if how.inputs is not None:
            known = how.inputs in orders
            # orders[...][o] is the stored place of channel o, so it gathers the stored inputs into their own order.
            current = reordered_inputs(current, torch.from_numpy(orders[how.inputs])) if known else current
        if how.masks or how.permuted or how.scaled:
            found, line, order = _undisguised(key, current, how, prior)
            if found is None and not how.masks and not how.scaled and key in followed:
                found, line = current, RecoveredTensor(key, len(current), 0, 0.0, "kept in its secret order")
            orders |= {} if order is None else {key: order}
        else:
            found, line = current, _followed(key, current, known and not how.zeroed)
        report.append(line)
        if found is not None:
            missing |= {key: found == 0} if how.zeroed else {}
            tensors[key] = _filled(found, prior) if how.zeroed else found
    for bias, weight in biases.items():
        if weight in orders or weight in tensors:
            stored = exposure.visible[bias]
            tensors[bias] = stored[torch.from_numpy(orders[weight])] if weight in orders else stored
    return Recovery(tensors, tuple(report), missing)


def _biases(exposure: Exposure) -> dict[str, str]:
    """Return the disguised biases with the weights whose order they share."""
    pairs = {n.tensors["bias"]: n.tensors["weight"] for n in exposure.architecture.nodes if "bias" in n.tensors}
    return {bias: weight for bias, weight in pairs.items() if bias in exposure.masked}


def _followed(key: str, tensor: Tensor, known: bool) -> RecoveredTensor:
    """Report a tensor whose rows are in place: rows with a zero lack what lives elsewhere."""
    rows = len(tensor)
    if known:
        return RecoveredTensor(key, rows, rows, 0.0, "inputs follow")
    whole = int((tensor != 0).flatten(1).all(1).sum())
    return RecoveredTensor(key, rows, whole, 0.0, "prior where zero")


def _filled(tensor: Tensor, prior: Tensor | None) -> Tensor:
    """Return the tensor with its zeros from the prior, where what is visible shows that the prior is a relative."""
    seen = tensor != 0
    if prior is None or not bool(seen.any()):
        return tensor
    pair = [t[seen].double().numpy()[None] for t in (tensor, prior)]
    likeness = _cosines(pair[0], pair[1])
    related = float(likeness[0]) > 0 and float(_chance(likeness, int(seen.sum()))[0]) < SIGNIFICANCE
    return torch.where(seen, tensor, prior.to(tensor.dtype)) if related else tensor


def _undisguised(
    key: str, visible: Tensor, how: Obfuscation, prior: Tensor | None
) -> tuple[Tensor | None, RecoveredTensor, Int[np.ndarray, " O"] | None]:
    """Return the tensor in the architecture's order, what it rests on, and the rows' order where all are known."""
    outputs = len(visible) - how.masks
    if prior is None:
        return None, RecoveredTensor(key, outputs, 0, 0.0, "no prior"), None
    flat, reference = visible.flatten(1).double().numpy(), prior.flatten(1).double().numpy()
    metrics: tuple[Metric, ...] = ("cosine",) if how.scaled else ("l2", "cosine")
    matches = {metric: match(flat, reference, how, metric) for metric in metrics}
    metric = max(matches, key=lambda m: (int(matches[m].credible.sum()), float(matches[m].cosine.mean())))
    best = matches[metric]
    count = int(best.credible.sum())
    if not count:
        return None, RecoveredTensor(key, outputs, 0, 0.0, metric), None
    kernels = best.kernels
    if how.scaled:
        fit = (kernels * reference).sum(1) / np.maximum((reference**2).sum(1), 1e-300)
        kernels = kernels / np.where(fit == 0, 1.0, fit)[:, None]
    chosen = np.where(best.credible[:, None], kernels, reference)
    tensor = torch.from_numpy(chosen).to(visible.dtype).view(prior.shape)
    cosine = float(best.cosine[best.credible].mean())
    return tensor, RecoveredTensor(key, outputs, count, cosine, metric), best.rows


def match(
    rows: Float64[np.ndarray, "R d"], prior: Float64[np.ndarray, "O d"], how: Obfuscation, metric: Metric
) -> Match:
    """Assign a row (and a mask) to each kernel of the prior; R = O + masks."""
    total, outputs, width = len(rows), len(prior), rows.shape[1]
    allowed, masking = None, np.zeros(total, dtype=bool)
    if how.masks:
        passed = _mask_test(rows)
        masking = _masking_rows(rows, prior, how, passed)
        allowed = passed & masking[None]
        allowed[~allowed.any(1)] = masking
    score, partner = _scores(rows, prior, allowed, metric, either_sign=how.scaled)
    order = np.flatnonzero(~masking)
    if how.permuted:
        row, kernel = linear_sum_assignment(score[order], maximize=True)
        place = np.empty(outputs, dtype=np.int64)
        place[kernel] = order[row]
        order = place
    masks = partner[order, np.arange(outputs)]
    kernels = rows[order] - (rows[masks] if how.masks else 0.0)
    cosine = _cosines(kernels, prior)
    size = np.abs(cosine) if how.scaled else cosine
    trials = float(outputs * (total if allowed is None else allowed.sum()))
    credible = (_chance(size, width) * trials < SIGNIFICANCE) & (size > 0)
    return Match(order, masks, size, credible, kernels)


def _chance(cosine: Float64[np.ndarray, " O"], width: int) -> Float64[np.ndarray, " O"]:
    """Return how often two independent isotropic directions of `width` dimensions are at least as parallel."""
    if width < 2:
        return np.ones_like(cosine)
    chance: np.ndarray = beta.sf(np.clip(cosine, 0, 1) ** 2, 0.5, (width - 1) / 2)
    return chance


def _masking_rows(
    rows: Float64[np.ndarray, "R d"],
    prior: Float64[np.ndarray, "O d"],
    how: Obfuscation,
    passed: Bool[np.ndarray, "R R"],
) -> Bool[np.ndarray, " R"]:
    """Return which rows are masks: the set that lets the remaining rows look most like kernels of the prior.

    A mask suits several kernels, a kernel only its own mask. The set grows greedily (facility location), by cosine.
    """
    found = np.zeros(len(rows), dtype=bool)
    if not how.permuted:
        found[len(prior) :] = True
        return found
    suits = _best_cosines(rows, prior, passed, either_sign=how.scaled)
    reached = np.zeros(len(rows))
    for _ in range(how.masks):
        gain = np.maximum(suits - reached[:, None], 0)
        gain[found] = 0
        # A mask no longer counts as a kernel: what it had reached as one is lost.
        total = gain.sum(0) - np.diag(gain) - reached
        total[found] = -np.inf
        chosen = int(total.argmax())
        found[chosen] = True
        reached = np.where(found, 0.0, np.maximum(reached, suits[:, chosen]))
    return _exchanged(rows, prior, found, suits, either_sign=how.scaled)


def _exchanged(
    rows: Float64[np.ndarray, "R d"],
    prior: Float64[np.ndarray, "O d"],
    found: Bool[np.ndarray, " R"],
    suits: Float64[np.ndarray, "R R"],
    *,
    either_sign: bool,
) -> Bool[np.ndarray, " R"]:
    """Exchange each mask for the row of its group that explains the group better, each kernel being taken only once.

    Growing the set counts a kernel as often as it explains a row; a group with a kernel of almost zero needs more care.
    """
    better: np.ndarray = found.copy()
    masks = np.flatnonzero(found)
    owner = masks[suits[:, masks].argmax(1)]
    directions = prior / np.maximum(np.linalg.norm(prior, axis=1, keepdims=True), 1e-150)
    for mask in masks:
        group = np.append(mask, np.flatnonzero((owner == mask) & ~found))
        worth = []
        for chosen in group if len(group) > 2 else ():
            rest = rows[group[group != chosen]] - rows[chosen]
            along: np.ndarray = rest @ directions.T / np.maximum(np.linalg.norm(rest, axis=1, keepdims=True), 1e-150)
            along = np.abs(along) if either_sign else along
            worth.append(along[linear_sum_assignment(along, maximize=True)].sum())
        if worth:
            better[mask], better[group[int(np.argmax(worth))]] = False, True
    return better


def _best_cosines(
    rows: Float64[np.ndarray, "R d"],
    prior: Float64[np.ndarray, "O d"],
    allowed: Bool[np.ndarray, "R R"],
    *,
    either_sign: bool,
) -> Float64[np.ndarray, "R R"]:
    """Return for each row and allowed mask the largest cosine of their difference to any kernel; 0 elsewhere."""
    gram, dots = rows @ rows.T, rows @ prior.T
    norms = np.sqrt(np.maximum((prior**2).sum(1), 1e-300))
    power, found = np.diag(gram), np.zeros(allowed.shape)
    for i in range(len(rows)):
        others = allowed[i].nonzero()[0]
        if len(others):
            size = np.sqrt(np.maximum(power[i] + power[others] - 2 * gram[i, others], 1e-300))
            along = (dots[i] - dots[others]) / norms
            found[i, others] = np.maximum((np.abs(along) if either_sign else along).max(1), 0) / size
    return found


def _cosines(a: Float64[np.ndarray, "O d"], b: Float64[np.ndarray, "O d"]) -> Float64[np.ndarray, " O"]:
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    found: np.ndarray = (a * b).sum(1) / np.maximum(norms, 1e-300)
    return found


def _mask_test(rows: Float64[np.ndarray, "R d"]) -> Bool[np.ndarray, "R R"]:
    """Return which row [i] may hide behind which mask [j]: var(row_i - row_j) < 0.01 (16 t^2 / 12), i != j.

    Masks are uniform in ±t, so t follows from the rows' variance; rows that pass with nobody may pair with everybody.
    """
    square = 3.0 * float(np.median(rows.var(axis=1)))
    centred = rows - rows.mean(axis=1, keepdims=True)
    power = (centred**2).mean(axis=1)
    spread = power[:, None] + power[None] - 2 * centred @ centred.T / rows.shape[1]
    passed: np.ndarray = spread < 0.01 * 16 * square / 12
    np.fill_diagonal(passed, False)
    passed[~passed.any(1)] = True
    np.fill_diagonal(passed, False)
    return passed


def _scores(
    rows: Float64[np.ndarray, "R d"],
    prior: Float64[np.ndarray, "O d"],
    allowed: Bool[np.ndarray, "R R"] | None,
    metric: Metric,
    *,
    either_sign: bool,
) -> tuple[Float64[np.ndarray, "R O"], Int[np.ndarray, "R O"]]:
    """Return how well each row suits each kernel behind its best mask, and that mask's row (-1 without masks)."""
    dots, size = rows @ prior.T, (prior**2).sum(1)
    gram = rows @ rows.T
    power = np.diag(gram)
    score = np.full(dots.shape, -np.inf)
    partner = np.full(dots.shape, -1, dtype=np.int64)
    for i in range(len(rows)):
        others = np.zeros(0, dtype=np.int64) if allowed is None else allowed[i].nonzero()[0]
        projected = dots[i][None] if allowed is None else dots[i] - dots[others]
        squared = power[i : i + 1] if allowed is None else power[i] + power[others] - 2 * gram[i, others]
        if metric == "l2":
            value = -(squared[:, None] + size[None] - 2 * projected)
        else:
            value = projected / np.sqrt(np.maximum(squared[:, None] * size[None], 1e-300))
            value = np.abs(value) if either_sign else value
        if len(value) == 0:
            score[i] = -1e9
            continue
        best = value.argmax(axis=0)
        score[i] = value[best, np.arange(len(prior))]
        partner[i] = -1 if allowed is None else others[best]
    return score, partner
