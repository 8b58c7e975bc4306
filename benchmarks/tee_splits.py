"""Every way to split a network between the two worlds, in one table: accuracy, stealing, secure memory, overhead.

Each row is kept in a work folder as soon as it is measured: a second run continues. Without a GPU the trainings are
reduced, which the result says. Settings come from `TEE_SPLITS` (JSON object of `Settings` fields).
"""

import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch

from benchmarks.tee_cases import Case, Grain, Settings, no_cases, pieces
from benchmarks.tee_targets import OVERHEAD, shielded, targets, unshielded
from edgeward.attacks.extraction import Attacker, Exposure, References, audit_split, black_boxes, measure_references
from edgeward.attacks.extraction.probing import QUERIES
from edgeward.backends.tee.emulator import Emulator
from edgeward.backends.tee.split_executable import split_executable
from edgeward.backends.tee.split_shape import shape_of
from edgeward.core.interval import Estimate
from edgeward.core.randomness import Seed
from edgeward.data import Records, load, public_photos
from edgeward.data.splits import Splits
from edgeward.devices import load_profile
from edgeward.graph import capture, fold_batch_norm, to_module
from edgeward.graph.fold import remove_identities
from edgeward.graph.partition import blocks, stages, subnetwork
from edgeward.nets.pretrained import PRETRAINED, pretrained
from edgeward.recipes.mirrornet import Strategy, deployment, exposure, mirror
from edgeward.recipes.mirrornet.mirroring import answers
from edgeward.recipes.mirrornet.proposals import copies_from
from edgeward.recipes.mirrornet.ranges import range_leak
from edgeward.recipes.mirrornet.scoring import score
from edgeward.recipes.mirrornet.splitting import split
from edgeward.recipes.splits import SPLITS, Subject
from edgeward.train import Schedule
from edgeward.train.task import Task
from edgeward.transforms.mirror import Block

NAME = "tee-splits"
DESCRIPTION = "strategies that split ResNet-20 (CIFAR-10) and MobileNet (VWW): accuracy, stealing ratio, RAM, overhead"
SLOW = "trains victims, references and attackers for every strategy; goes on from runs/tee-splits"

WORKDIR = Path("runs/tee-splits")
LAYERS = ("whole", "deep", "head")
"""Splits of one int8 network between two layers: they share the references of the whole."""
PUBLIC_BACKBONE = Path("runs/public_backbone/backbone.safetensors")


def run(settings: Settings | None = None) -> dict:
    """Measure every row that is not in the work folder yet and return the tables."""
    settings = settings or Settings.here()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    tables = {c.victim: Bench(c, settings).table() for c in (settings.resnet, settings.mobilenet) if c.budgets}
    ours = max(shielded(table) for table in tables.values())
    peer = max((unshielded(row) for table in tables.values() for row in table["rows"]), default=math.nan)
    return {
        "ratio": peer / ours,
        "ours": ours,
        "peer": peer,
        "unit": "stolen accuracy / black-box level, worst budget",
        "peer_name": "no shield",
        "tables": tables,
        "settings": asdict(settings),
        "note": "reduced training on processor cores" if settings.reduced else "full training on a GPU",
        "overheads": f"modelled on the profile {settings.device_profile}, not measured on a device; overhead_stream "
        "is a plan that no emitted application runs; rows are chosen by overhead_batch",
        "selection": "rows are chosen for targets on records of their own (`choosing`); every other figure, and "
        "whether a target is met, is of the holdout, on which no row was chosen",
        "attack_choice": "strongest variant in hindsight for splits and references alike; `own_choice`: what the "
        "thief's own labels would have chosen",
        "references": "both ends answer as the audited split does: its own int8 answers (`deep` and `head`: those of "
        "the same network as a whole in int8), float where it is not run",
        "calibration": "int8 ranges are taken from public photos",
    }


class Bench:
    """The rows of one victim."""

    def __init__(self, case: Case, settings: Settings) -> None:
        self.case, self.settings = case, settings
        self.folder = WORKDIR / case.victim
        self.seed = Seed(settings.seed)
        entry = PRETRAINED[case.victim]
        self.splits = load(case.data, seed=self.seed, canaries=20, train=case.train, holdout=case.holdout)
        judges = self.splits.holdout
        self.holdout = judges.subset(range(case.choosing, len(judges)), "holdout")
        self.choosing = judges.subset(range(case.choosing), "choosing") if case.choosing else self.splits.validation
        size = entry.input_shape[-1]
        self.calibration = torch.from_numpy(public_photos(size)[: settings.calibration]).float() / 255
        self.foreign = pieces(size)
        self.classes = entry.classes
        self.victim = _network(pretrained(case.victim), entry.input_shape)
        self.public, self.public_note = self._public(entry.input_shape)
        self.emulator = Emulator(load_profile(settings.device_profile))
        self.attacker = Attacker(
            rates=settings.attack_rates,
            head_rates=(1e-2,),
            epochs=settings.attack_epochs,
            steps=settings.attack_steps,
            flips=case.flips,
            variants=settings.attack_variants,
            finalists=settings.attack_finalists,
            queries=settings.attack_queries,
            device=settings.torch_device,
        )

    def _public(self, shape: tuple) -> tuple:
        """Return a backbone that never saw the private records, and what it is."""
        if self.case.victim == "mobilenet_v1_vww":
            return _network(pretrained("mobilenet_v1_vww_public"), shape), "ImageNet weights (MobileNetV1 0.25)"
        module = PRETRAINED[self.case.victim].build()
        if PUBLIC_BACKBONE.exists():
            from safetensors.torch import load_file

            known = load_file(PUBLIC_BACKBONE)
            module.load_state_dict({**module.state_dict(), **known})
            return _network(module.eval(), shape), "trained on crops of 500 public photos"
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(77)
            module = PRETRAINED[self.case.victim].build()
        return _network(module.eval(), shape), "random weights: no public backbone was found"

    def table(self) -> dict:
        """Return all rows, the victim's own figures, and how the targets were met."""
        rows = [self.row(name, make) for name, make in self.strategies().items()]
        runs = lambda x: answers(self.victim, torch.as_tensor(x)).argmax(1).numpy()  # noqa: E731
        victim = {r.name: self._accuracy_of(runs, r)[0] for r in (self.holdout, self.choosing)}
        victim = {"holdout": victim[self.holdout.name], "choosing": victim[self.choosing.name]}
        return {
            "victim_accuracy_float": victim["holdout"],
            "victim_accuracy_choosing": victim["choosing"],
            "records": {**self.splits.counts(), "holdout": len(self.holdout), "choosing": len(self.choosing)},
            "ranges": self.ranges(),
            "public_backbone": self.public_note,
            "rows": rows,
            "targets": targets(rows, victim),
        }

    def strategies(self) -> dict:
        """Return what makes each row: both ends first, then the classics, then ours."""
        found: dict[str, Callable[[], dict]] = {n: (lambda n=n: self._classic(n)) for n in ("whole", "none")}
        found |= {n: (lambda n=n: self._classic(n)) for n in SPLITS if n not in found}
        light = self.light_blocks()
        last = len(stages(self.victim)) - 1
        for preset in ("anti", "faithful", "public"):
            found[f"mirrornet-{preset}"] = lambda p=preset: self._mirrored(self.strategy(f"mirrornet-{p}", light, p))
        head = replace(self.strategy("mirrornet-faithful-head", light, "faithful"), spoils="head")
        found[head.name] = lambda: self._mirrored(head)
        for first in range(2, last + 1):
            copies = copies_from(first, stages(self.victim), foreign=True)
            name = f"mirrornet-public-copies-{first}"
            found[name] = lambda n=name, b=copies: self._mirrored(self.strategy(n, b, "public"))
        for grain in self.case.grain:
            name = f"mirrornet-public-from-block-{grain.first}"
            found[name] = lambda n=name, g=grain: self._mirrored(self.following(n, g), g)
        wanted = self.settings.strategies or tuple(found)
        return {name: make for name, make in found.items() if name in wanted}

    def strategy(self, name: str, blocks: tuple, preset: str) -> Strategy:
        """Return one of our strategies; the gap aims beyond the claim: validation records are members of the victim."""
        return Strategy(name, blocks, preset, gap=0.3, flips=self.case.flips)

    def following(self, name: str, grain: Grain) -> Strategy:
        """Return the strategy whose public backbone ends before a block: copies of it and of all later ones."""
        copies = copies_from(grain.first, blocks(self.victim), foreign=True, kind=grain.kind)
        fine = {"division": "blocks", "shift": self.case.shift, "follow": 1.0, "tuning": grain.tuning}
        return replace(self.strategy(name, copies, "public"), **fine)

    def light_blocks(self) -> tuple[Block, ...]:
        """Return the largest uniform monitor on the last stages that stays below the overhead of what runs."""
        path = self.folder / "light.json"
        if not path.exists():
            at, best = stages(self.victim), (-1, ())
            for first in range(1, len(at)):
                for kind, width in (("pw", 8), ("pw", 16), ("pw", 32), ("dwsep", 8), ("dwsep", 16)):
                    blocks = tuple(Block(stage, kind, width) for stage in range(first, len(at)))
                    found = score(self.victim, at, self.strategy("light", blocks, "faithful"), self.emulator)
                    if found is not None and found.overhead <= 0.9 * OVERHEAD and found.capacity > best[0]:
                        best = (found.capacity, blocks)
            _write(path, [asdict(block) for block in best[1]])
        return tuple(Block(**block) for block in json.loads(path.read_text()))

    def row(self, name: str, make: Callable[[], dict]) -> dict:
        """Return one row, from the work folder where it is already there."""
        path = self.folder / f"{name}.json"
        own = [g for g in self.case.grain if name.endswith(f"from-block-{g.first}")]
        tag = repr((self.basis(), own, replace(self.settings, strategies=(), **no_cases()), self.public_note))
        if path.exists():
            known = json.loads(path.read_text())
            if known["tag"] == tag:
                return known["row"]
        started = time.perf_counter()
        sys.stderr.write(f"{self.case.victim}: {name}\n")
        row = {"strategy": name, **make()}
        row["seconds_to_measure"] = time.perf_counter() - started
        _write(path, {"tag": tag, "row": row})
        return row

    def basis(self) -> Case:
        """Return what all rows of a table share."""
        return replace(self.case, grain=())

    def _classic(self, name: str) -> dict:
        subject = Subject(self.victim, self.public.tensors, self.calibration, self.seed)
        made = SPLITS[name](subject)
        figures = {
            "switches": made.traffic.switches,
            "bytes": made.traffic.bytes,
            "one_way": made.traffic.one_way,
            "secure_weight_bytes": made.secure_bytes,
            "notes": list(made.notes),
        }
        return {**figures, **self._measured(made.deployment, made.exposure, name)}

    def _schedule(self, records: int, grain: Grain) -> Schedule:
        """Return the schedule: small sets take smaller batches and more epochs, up to `steps` in all."""
        s = self.settings
        batch = min(s.batch, max(16, records // 8))
        epochs = max(grain.epochs, math.ceil(grain.steps / math.ceil(records / batch)))
        return Schedule(epochs, batch, s.rate, decay="cosine")

    def _trainings(self, grain: Grain) -> tuple:
        """Return what a training depends on, beside its strategy."""
        s, case = self.settings, self.case
        own = (grain.records, grain.epochs, grain.steps)
        return case.victim, case.data, own, s.seed, s.batch, s.rate, self.public_note

    def task(self, strategy: Strategy, grain: Grain) -> Task:
        """Return the private records and the schedule of one strategy."""
        splits = self.splits if grain.records in (None, self.case.train) else self._other(grain.records)
        train, validation = splits.train, splits.validation
        return Task(
            factory=lambda: to_module(self.victim),
            x=train.x,
            y=train.y,
            members=torch.ones(1, len(train), dtype=torch.bool),
            classes=self.classes,
            seed=self.seed.child("mirror"),
            schedule=self._schedule(len(train), grain),
            validation=(validation.x, validation.y),
            directory=self.folder / "training",
            tag=f"{number_of(self._trainings(grain), strategy.to_json()):x}",
            device=self.settings.torch_device,
        )

    def _other(self, records: int) -> Splits:
        """Return the roles with another number of private records; the others are the same."""
        case = self.case
        found = load(case.data, seed=self.seed, canaries=20, train=records, holdout=case.holdout)
        assert found.holdout.digest == self.splits.holdout.digest
        assert found.shadow.digest == self.splits.shadow.digest
        return found

    def _mirrored(self, strategy: Strategy, grain: Grain | None = None) -> dict:
        task = self.task(
            strategy, grain or Grain(0, epochs=self.settings.epochs, records=self.case.train, steps=self.settings.steps)
        )
        found = mirror(self.victim, strategy, task, public=self.public)
        made = deployment(found, self.calibration)
        row = self._measured(made, exposure(found, self.public.tensors), strategy.name)
        return {
            "switches": made.traffic.switches,
            "bytes": made.traffic.bytes,
            "one_way": True,
            "secure_weight_bytes": sum(t.numel() for t in found.monitor.tensors.values()),
            "notes": [strategy.describe()],
            "private_records": len(task.x),
            "epochs": task.schedule.epochs,
            "accuracy_float": found.accuracy(self.holdout.x, self.holdout.y),
            **row,
        }

    def _measured(self, made, seen: Exposure, name: str) -> dict:
        """Return accuracy, overheads and the stealing audit."""
        if made is None:
            runs = lambda x: answers(self.victim, torch.as_tensor(x)).argmax(1).numpy()  # noqa: E731
            modelled: dict = {"overhead_batch": None, "overhead_stream": None, "secure_ram": None}
        else:
            runs = split_executable(made).labels
            shape = shape_of(made, self.victim)
            batch, stream = (self.emulator.estimate(shape, mode) for mode in ("batch", "stream"))
            modelled = {"overhead_batch": batch.overhead, "overhead_stream": stream.overhead}
            modelled |= {"secure_ram": batch.secure_ram_bytes, "switches_stream": stream.switches}
        attacker = self.attacker if name not in self.settings.probed else replace(self.attacker, queries=tuple(QUERIES))
        report = audit_split(
            seen,
            runs,
            self.splits.shadow,
            self.holdout,
            self.case.budgets,
            self.settings.attackers,
            references=self.references(runs, attacker) if name not in LAYERS else self.of_whole(attacker),
            members=self._members(),
            attacker=attacker,
            choosing=self.choosing,
            foreign=self.foreign,
        ).to_json()
        lists = ("tried", "rivals")
        stealing = [{k: v for k, v in budget.items() if k not in lists} for budget in report.pop("budgets")]
        report.pop("recovery"), report.pop("attacker")
        accuracy, interval = self._accuracy_of(runs, self.holdout)
        return {
            "accuracy": accuracy,
            "accuracy_interval": interval,
            "accuracy_choosing": self._accuracy_of(runs, self.choosing)[0],
            "int8": made is not None,
            **modelled,
            "queries": list(attacker.queries),
            "stealing": stealing,
            "audit": report,
        }

    def _members(self) -> Records:
        return self.splits.train.subset(range(min(len(self.splits.train), len(self.holdout))))

    def _accuracy_of(self, labels: Callable, records: Records) -> tuple[float, list[float]]:
        """Return the accuracy of `labels` with its Clopper-Pearson interval."""
        hits = int((torch.as_tensor(labels(records.x.numpy())) == records.y).sum())
        found = Estimate.proportion(hits, len(records))
        return found.value, [found.low, found.high]

    def references(self, runs: Callable, attacker: Attacker) -> References:
        """Return both ends of the audit for a victim that answers as `runs` does, shared by rows that answer alike."""
        pool = torch.as_tensor(runs(self.splits.shadow.x.numpy())).tolist()
        judged = torch.as_tensor(runs(self.holdout.x.numpy())).tolist()
        forms = len(black_boxes(self.victim, self.public))
        depends = number_of(
            attacker, self.basis(), self.settings.attackers, self.settings.seed, self.public_note, forms
        )
        path = self.folder / "references" / f"{depends:x}-{number_of(pool, judged):x}.safetensors"
        if path.exists():
            return References.load(path)
        sys.stderr.write(f"{self.case.victim}: references\n")
        prior = dict(self.public.tensors)
        ends = black_boxes(self.victim, self.public), Exposure.of("none", self.victim, prior)
        rest = (self.splits.shadow, self.holdout, self.case.budgets, self.settings.attackers)
        more = {"attacker": attacker, "choosing": self.choosing, "foreign": self.foreign}
        found = measure_references(*ends, runs, *rest, **more)
        found.save(path)
        return found

    def of_whole(self, attacker: Attacker) -> References:
        """Return the references labelled by the whole network in int8: the same weights, cut elsewhere."""
        whole = SPLITS["whole"](Subject(self.victim, self.public.tensors, self.calibration, self.seed)).deployment
        assert whole is not None
        return self.references(split_executable(whole).labels, attacker)

    def ranges(self) -> dict:
        """Return what the open range of the tap behind the first stage says of the records it was calibrated on."""
        path = self.folder / "ranges.json"
        if not path.exists():
            private, count = self.splits.train.x, self.settings.calibration
            inside, others = private[: min(count, len(private) // 2)], self.splits.shadow.x
            found = {}
            for name, records, percentile in (
                ("private", inside, 100.0),
                ("private, 99.9th percentile", inside, 99.9),
                ("public photos", self.calibration, 100.0),
            ):
                copies = copies_from(2, stages(self.victim), foreign=False)
                untrained = replace(self.strategy("ranges", copies, "public"), flips=False)
                found[name] = range_leak(self._untrained(untrained, records, percentile), inside, others).to_json()
                found[name]["attack"].pop("roc", None)
            _write(path, found)
        return json.loads(path.read_text())

    def _untrained(self, strategy: Strategy, records: torch.Tensor, percentile: float):
        """Return the split of the public backbone and the victim's later stages as they are."""
        first = stages(self.public)[strategy.blocks[0].stage - 1].value
        own = stages(self.victim)[strategy.blocks[0].stage - 1].value
        normal = subnetwork(self.public, self.public.inputs, (first,))
        secure = subnetwork(self.victim, (own,), self.victim.outputs[-1:])
        return split(strategy.name, normal, secure, records, plain={}, percentile=percentile)


def number_of(*parts) -> int:
    """Return a number that changes with any of `parts`."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:6], "big")


def _network(module, shape):
    return remove_identities(fold_batch_norm(capture(module, tuple(shape))))


def _write(path: Path, plain) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(plain, indent=1, default=str) + "\n", encoding="utf-8")
    os.replace(partial, path)
