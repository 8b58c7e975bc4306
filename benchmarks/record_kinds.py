"""Every recipe of the demo against every kind of audited records, on digits."""

import torch

from edgeward.attacks.membership.audit import rates, score
from edgeward.attacks.signals import Signals
from edgeward.attacks.strongest import strongest, worst
from edgeward.cli.watch import Lines
from edgeward.core.randomness import Seed
from edgeward.core.threat import MembershipInference
from edgeward.devices import load_profile
from edgeward.job import demo_job
from edgeward.measure.exposure import most_exposed
from edgeward.measure.leakage import panel_signals
from edgeward.measure.membership_design import design
from edgeward.measure.siblings import answers
from edgeward.measure.utility import accuracy
from edgeward.recipes import resolve
from edgeward.train.task import Task

NAME = "record-kinds"
DESCRIPTION = "digits, all recipes of the demo: TPR at 1 % FPR of the strongest attack on each kind of audited records"

SEED = Seed(0)
ALONE = "mislabelled, 200 alone"
TRUE_LABEL = "sources of the canaries, true label"


class Audit:
    """The demo's records and model, one recipe trained and attacked at a time."""

    def __init__(self) -> None:
        self.job = demo_job()
        self.splits, self.factory = self.job.splits(), self.job.factory()
        self.exposed = most_exposed(self.factory, self.splits, self.job.schedule, SEED.child("exposure"), Lines())
        self.device = load_profile(self.job.device)

    def scored(self, name: str, threat: MembershipInference) -> tuple[dict, dict]:
        """Return each panel's scores by kind, and the accuracy and epsilon of what would ship."""
        recipe = resolve(name)
        plan = design(self.splits, threat, SEED.child("membership"), self.exposed)
        validation = self.splits.validation
        task = Task(
            factory=self.factory,
            x=plan.x,
            y=plan.y,
            members=plan.members,
            classes=self.splits.classes,
            seed=SEED.child("train"),
            schedule=self.job.schedule,
            validation=(validation.x, validation.y),
            input_shape=self.splits.input_shape,
            watcher=Lines(),
            label=recipe.name,
        )
        siblings = recipe.lower(recipe.run(task), task, self.splits, self.device)
        found = {}
        for signals, panel in panel_signals(siblings, plan, self.splits):
            found[panel.kind.slug] = score(signals, groups=panel.clusters, models=panel.models)
            if panel.kind.slug == "natural":
                found[TRUE_LABEL] = score(_subset(signals, self.splits.canary_sources), models=panel.models)
        holdout = self.splits.holdout
        per_model = (answers(siblings.audited, holdout.x).argmax(-1) == holdout.y).float().mean(1)
        about = {
            "test_accuracy": accuracy(siblings.shipped, holdout.x, holdout.y).to_json(),
            "accuracy_of_audited_models": [round(float(a), 4) for a in per_model],
            "file_bytes": len(siblings.artefact),
        }
        return found, about

    def row(self, name: str) -> dict:
        """Return one recipe's rates by kind, and the worst of the kinds that an audit reports."""
        scored, about = self.scored(name, MembershipInference())
        alone, _ = self.scored(name, MembershipInference(kinds=("mislabelled",)))
        audited = {kind: s for kind, s in scored.items() if kind != TRUE_LABEL}
        per_kind, over_all = worst(audited, seed=SEED.child("audit"))
        kinds = {kind: _plain(found, audited[kind]) for kind, found in per_kind.items()}
        kinds[TRUE_LABEL] = _plain(strongest(scored[TRUE_LABEL], seed=SEED.child("audit")), scored[TRUE_LABEL])
        kinds[ALONE] = _plain(strongest(alone["mislabelled"], seed=SEED.child("audit")), alone["mislabelled"])
        return {
            "recipe": name,
            **about,
            "aimed_at": resolve(name).aimed_at,
            "worst": over_all.to_json(),
            "kinds": kinds,
        }


def _subset(signals: Signals, rows: torch.Tensor) -> Signals:
    return Signals(
        signals.logits[:, rows],
        signals.labels[rows],
        signals.keep[:, rows],
        signals.reference_logits,
        signals.reference_labels,
    )


def _plain(found, scored) -> dict:
    """Return the strongest with the rates as they show, and the best AUC of any attack."""
    listed = {result.name: result for result in rates(scored)}
    top, area = listed[found.name], max(listed.values(), key=lambda result: result.auc.value)
    return {
        **found.to_json(),
        "tpr_at_1pct_in_hindsight": top.tpr_at_1pct.to_json(),
        "tpr_at_0_1pct_in_hindsight": top.tpr_at_0_1pct.to_json(),
        "auc": top.auc.to_json(),
        "best_auc": {"attack": area.name, **area.auc.to_json()},
        "negatives": top.negatives,
    }


def run() -> dict:
    """Train and audit each recipe; the ratio is that of the worst kinds of no defence and of gecko:crossfit."""
    audit = Audit()
    rows = [audit.row(choice.name) for choice in audit.job.recipes]
    by_name = {row["recipe"]: row for row in rows}
    ours, peer = (by_name[name]["worst"]["corrected"]["value"] for name in ("gecko:crossfit", "none"))
    return {
        "ratio": peer / ours,
        "ours": ours,
        "peer": peer,
        "unit": "TPR at 1 % FPR of the strongest attack on the worst kind of records, corrected for the choice",
        "peer_name": "none (undefended training)",
        "protocol": "16 audited models per sort of kinds, 100 records per planted kind; seed 0 as the demo",
        "rows": rows,
    }
