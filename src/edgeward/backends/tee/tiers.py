"""The emulated tiers by name."""

from __future__ import annotations

from edgeward.backends.tee.world import SecureWorld
from edgeward.core.errors import unknown_name
from edgeward.core.randomness import SecretBytes

TIERS = ("process", "wasm")


def secure_world(tier: str, key: SecretBytes) -> SecureWorld:
    """Return the emulated world `tier`, which opens blobs sealed with `key`.

    Raises: `ConfigError` for an unknown tier, `SecureWorldUnavailable` and `MissingExtra` where it cannot run.
    """
    if tier == "wasm":
        from edgeward.backends.tee.wasm_world import WasmWorld

        return WasmWorld(key)
    if tier == "process":
        from edgeward.backends.tee.process_world import ProcessWorld

        return ProcessWorld(key)
    raise unknown_name("tier", tier, TIERS)
