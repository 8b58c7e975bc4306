"""Registries: filled at import, read by name; the conformance suites iterate over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar, final

from edgeward.core.errors import unknown_name

T = TypeVar("T")


@final
class Registry(Mapping[str, T], Generic[T]):
    """A named table of one kind of thing; registering a name twice is an error."""

    def __init__(self, kind: str) -> None:
        """Name the kind ("attack", "recipe", ...) for error messages."""
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that enters its argument under `name`."""

        def enter(entry: T) -> T:
            if name in self._entries:
                raise ValueError(f"{self.kind} '{name}' is registered twice")
            self._entries[name] = entry
            return entry

        return enter

    def __getitem__(self, name: str) -> T:
        """Return the entry, or raise a `ConfigError` with the nearest names."""
        if name not in self._entries:
            raise unknown_name(self.kind, name, self._entries)
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        """Return whether `name` is registered."""
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names in order."""
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self._entries)
