"""Candidates: an immutable recipe instance with a content hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final


def canonical_json(data: Any) -> str:
    """Return the one JSON text of `data` that hashes are taken of: sorted keys, no spaces, no NaN."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)


@final
@dataclass(frozen=True)
class Candidate:
    """One recipe with its settings, and everything else its result depends on.

    `recipe` is the slug, with its preset ("gecko:crossfit"); `config` its settings; `context` the hashes of the data,
    the architecture, the threats and the schedule. Two candidates with equal digests give equal results.
    """

    recipe: str
    config: Mapping[str, Any] = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """First 16 hex digits of the SHA-256 of the canonical form: the candidate's name on disk."""
        text = canonical_json({"recipe": self.recipe, "config": dict(self.config), "context": dict(self.context)})
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """Return the plain form."""
        return {"id": self.digest, "recipe": self.recipe, "config": dict(self.config)}
