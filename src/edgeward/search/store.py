"""The store of measured candidates: one folder per content hash, written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import final

from edgeward.core.candidate import Candidate
from edgeward.core.measurement import Measurement


@final
class Store:
    """Measured candidates under `root`, by digest. A killed run leaves only `.partial` folders, which are ignored."""

    def __init__(self, root: Path) -> None:
        """Use the folder `root`, created with the first entry."""
        self.root = root

    def folder(self, candidate: Candidate) -> Path:
        """Return the folder of a measured candidate."""
        return self.root / candidate.digest

    def scratch(self, candidate: Candidate) -> Path:
        """Return a folder for checkpoints of a candidate in progress; removed once it is measured."""
        return self.root / f"{candidate.digest}.training"

    def get(self, candidate: Candidate) -> Measurement | None:
        """Return what was measured of an equal candidate before, or None; a damaged entry counts as absent."""
        path = self.folder(candidate) / "measurement.json"
        try:
            return Measurement.from_json(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, candidate: Candidate, measurement: Measurement, write: Callable[[Path], None]) -> None:
        """Store a measurement with the files that `write` puts into the given folder."""
        partial = self.root / f"{candidate.digest}.{os.getpid()}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write(partial)
        described = {**candidate.to_json(), "context": dict(candidate.context)}
        (partial / "candidate.json").write_text(json.dumps(described, indent=1, sort_keys=True), encoding="utf-8")
        text = json.dumps(measurement.to_json(), indent=1, sort_keys=True)
        (partial / "measurement.json").write_text(text, encoding="utf-8")
        shutil.rmtree(self.folder(candidate), ignore_errors=True)
        partial.replace(self.folder(candidate))
        shutil.rmtree(self.scratch(candidate), ignore_errors=True)
