"""Which parts may be combined: one optimiser, one data order, and no batch-coupled loss under differential privacy."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from edgeward.core.errors import CompositionError
from edgeward.train.part import Loss, Part


def _acts_while_training(part: Part) -> bool:
    """Return whether a part has hooks that only the default loop calls."""
    return any(getattr(type(part), hook) is not getattr(Part, hook) for hook in ("augment", "on_step", "on_epoch"))


def compose(parts: Sequence[Part], template: nn.Module) -> list[Loss]:
    """Check a list of parts and return their losses; raises one `CompositionError` with every reason.

    Source: composition rules of DP-SGD (per-sample clipping needs per-sample losses and no batch statistics).
    """
    problems = []
    for demand, noun in (("owns_optimizer", "optimiser"), ("owns_order", "data order")):
        owners = [part.slug for part in parts if getattr(part.needs, demand)]
        if len(owners) > 1:
            problems.append(f"{' and '.join(owners)} each own the {noun}; keep one")
    owners = [part.slug for part in parts if part.needs.owns_optimizer]
    idle = [part.slug for part in parts if not part.needs.owns_optimizer and _acts_while_training(part)]
    if owners and idle:
        problems.append(f"{', '.join(idle)} act during training, which {owners[0]} runs by itself without calling them")
    private = [part for part in parts if part.needs.differentially_private]
    if private:
        coupled = [part.slug for part in parts if not part.needs.per_sample_loss]
        leaking = [p.slug for p in parts if p.needs.touches_records_outside_loss and not p.needs.differentially_private]
        if coupled:
            problems.append(f"{', '.join(coupled)} couple the samples of a batch, which breaks per-sample clipping")
        if leaking:
            problems.append(f"{', '.join(leaking)} read records outside the clipped loss, which the accountant ignores")
    if any(part.needs.forbids_batch_norm for part in parts):
        norms = [name for name, m in template.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        if norms:
            problems.append(f"BatchNorm couples samples at {', '.join(norms[:4])}; use GroupNorm or LayerNorm")
    losses = [loss for part in parts if (loss := part.loss()) is not None]
    if not losses:
        problems.append("no part gives a loss; add CrossEntropy()")
    if problems:
        raise CompositionError(
            "these parts cannot be combined:\n  " + "\n  ".join(problems),
            came=", ".join(part.slug for part in parts) or "an empty list",
            fix="drop or exchange the parts named above",
        )
    return losses
