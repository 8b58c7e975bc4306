"""Cost: a vector of named quantities, each with a unit and a provenance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, final

Provenance = Literal["declared", "modelled", "simulated", "emulated", "measured", "published"]

UNITS: Mapping[str, str] = {
    "parameters": "",
    "nonzeros": "",
    "weight_bytes": "B",
    "file_bytes": "B",
    "binary_weight_bytes": "B",
    "binary_weights": "",
    "peak_ram_bytes": "B",
    "secure_ram_bytes": "B",
    "macs": "MAC",
    "bit_operations": "bitop",
    "ace": "ACE",
    "cpu64_classic": "op",
    "cpu64_lane": "op",
    "energy_joules": "J",
    "device_latency_seconds": "s",
    "host_latency_seconds": "s",
    "training_runs": "",
    "training_seconds": "s",
    "bytes_sent": "B",
    "rounds": "",
    "rotations": "",
    "levels": "",
    "switches": "",
    "overhead": "fraction",
}


@final
@dataclass(frozen=True)
class Quantity:
    """One number with its unit, how it was obtained, and the source or machine behind it."""

    value: float
    unit: str
    provenance: Provenance
    source: str = ""


@final
@dataclass(frozen=True)
class Cost(Mapping[str, Quantity]):
    """What a candidate costs: names from `UNITS`, each a `Quantity`; provenances never mix silently."""

    quantities: Mapping[str, Quantity] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse names or units outside `UNITS`."""
        for name, quantity in self.quantities.items():
            if UNITS.get(name) != quantity.unit:
                raise ValueError(f"cost '{name}' in '{quantity.unit}': expected a name of core.cost.UNITS in its unit")

    def __getitem__(self, name: str) -> Quantity:
        """Return the quantity called `name`."""
        return self.quantities[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self.quantities)

    def __len__(self) -> int:
        """Return the number of quantities."""
        return len(self.quantities)

    def value(self, name: str) -> float:
        """Return the bare number called `name`."""
        return self.quantities[name].value

    def adding(self, provenance: Provenance, source: str = "", /, **values: float) -> Cost:
        """Return a copy with more quantities of one provenance.

        >>> Cost().adding("declared", macs=10).value("macs")
        10
        """
        new = {name: Quantity(value, UNITS[name], provenance, source) for name, value in values.items()}
        return Cost({**self.quantities, **new})

    def to_json(self) -> dict[str, Any]:
        """Return {"file_bytes": 123, ..., "provenance": {"file_bytes": {"unit", "kind", "source"}}}."""
        notes = {n: {"unit": q.unit, "kind": q.provenance, "source": q.source} for n, q in self.quantities.items()}
        return {**{name: q.value for name, q in self.quantities.items()}, "provenance": notes}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Cost:
        """Read back what `to_json` wrote."""
        notes = data["provenance"]
        return cls({n: Quantity(data[n], notes[n]["unit"], notes[n]["kind"], notes[n]["source"]) for n in notes})
