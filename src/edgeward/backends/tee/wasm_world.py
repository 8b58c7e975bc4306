"""`WasmWorld`: the trusted application as a WebAssembly module with a hard memory cap and no system calls."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np

from edgeward.backends.tee.build import compiled
from edgeward.backends.tee.sealing import TAG_BYTES
from edgeward.backends.tee.session import MESSAGE, Channel, Meter, Session, configuration, dead, window_bytes
from edgeward.backends.tee.world import Application, Result, SecureMemoryExceeded, SecureWorld, over_budget
from edgeward.core.extras import require
from edgeward.core.randomness import SecretBytes

_PAGE = 65536
_TABLE_ELEMENTS = 4096
_FUEL_TO_OPEN = 10**12
# What a module may bring beside its budget: its stack (one page) and constants of its C text.
_OWN_PAGES = 16


@final
class WasmWorld(SecureWorld):
    """WebAssembly under wasmtime.

    Guarantee: the module reaches its own memory and three imported functions of the TEE API, no more; its memory cannot
    grow beyond its budget and 1 MiB of its own for stack and constants; an instruction count ("fuel") that is the same
    in every run bounds and meters it. Enforced by wasmtime (assumed). NOT against this process or whoever can read its
    memory.
    """

    tier: ClassVar[str] = "wasm"
    notice: ClassVar[str] = (
        "emulated: wasm; confines the trusted application, hides nothing from the process that hosts it, from root or "
        "from the owner of the device"
    )

    def __init__(self, key: SecretBytes, *, fuel: int = 10**12, test_build: bool = False) -> None:
        """Hold the sealing key; `fuel` is what one invocation may use before it counts as hung."""
        self._wasmtime = require("wasmtime", extra="tee-emul")
        self._key, self._fuel, self._test_build = key, fuel, test_build
        settings = self._wasmtime.Config()
        settings.consume_fuel = True
        self._engine = self._wasmtime.Engine(settings)
        self._modules: dict[Path, Any] = {}

    def build(self, application: Application) -> Path:
        return compiled(application, "wasm", test_build=self._test_build)

    def open_session(self, application: Application) -> Session:
        path = self.build(application)
        if path not in self._modules:
            self._modules[path] = self._wasmtime.Module.from_file(self._engine, str(path))
        opening = _Opening(self._wasmtime, self._engine, self._modules[path], self._key, self._fuel)
        return Session(application, opening.open(application))


@final
class _Opening:
    """One instance being set up: limits, imports, window, budget."""

    def __init__(self, wasmtime: Any, engine: Any, module: Any, key: SecretBytes, fuel: int) -> None:
        self._wasmtime, self._engine, self._module, self._fuel = wasmtime, engine, module, fuel
        self._key = key
        self._store = wasmtime.Store(engine)

    def open(self, application: Application) -> Channel:
        trouble = self._wasmtime.WasmtimeError, self._wasmtime.Trap
        try:
            return self._opened(application, trouble)
        except trouble as error:
            why = str(error).strip().splitlines()[-1].strip()
            raise dead(f"the trusted application trapped while it opened ({why})", "fetch the bundle again") from None

    def _opened(self, application: Application, trouble: tuple[type[BaseException], ...]) -> Channel:
        window, store = window_bytes(application), self._store
        first = next(e.type.limits.min for e in self._module.exports if e.name == "memory")
        if first > _OWN_PAGES:
            raise SecureMemoryExceeded(
                "TEE_ERROR_OUT_OF_MEMORY: the trusted application takes memory beside its budget",
                result=Result.TEE_ERROR_OUT_OF_MEMORY,
                expected=f"at most {_OWN_PAGES * _PAGE} bytes of stack and constants",
                came=f"{first * _PAGE} bytes",
                fix="fetch the bundle again: emitted C text has no memory of its own",
            )
        pages = first + -(-window // _PAGE) + -(-application.memory_budget // _PAGE)
        store.set_limits(pages * _PAGE, _TABLE_ELEMENTS, 1, 1, 1)
        store.set_fuel(_FUEL_TO_OPEN)
        exports = self._linked(application).instantiate(store, self._module).exports(store)
        memory = exports["memory"]
        memory.write(store, configuration(application), exports["edgeward_configuration_address"](store))
        address = exports["edgeward_share"](store, window) & 0xFFFFFFFF
        result = exports["edgeward_start"](store, application.memory_budget) & 0xFFFFFFFF
        if not address or result == Result.TEE_ERROR_OUT_OF_MEMORY:
            raise over_budget(application)
        return _WasmChannel(store, exports, address, window, self._fuel, trouble)

    def _linked(self, application: Application) -> Any:
        wasmtime, integer = self._wasmtime, self._wasmtime.ValType.i32()
        linker = wasmtime.Linker(self._engine)
        unseal = _unsealing(self._key, application.manifest_digest, application.counter_floor)
        imports = {
            "TEE_AEDecryptFinal": (wasmtime.FuncType([integer] * 5, [integer]), unseal),
            "TEE_GenerateRandom": (wasmtime.FuncType([integer] * 2, []), _random),
            "TEE_GetSystemTime": (wasmtime.FuncType([], [wasmtime.ValType.i64()]), _milliseconds),
        }
        for name, (signature, function) in imports.items():
            linker.define_func("tee", name, signature, function, access_caller=True)
        return linker


@final
class _WasmChannel(Channel):
    """Messages through the module's own memory."""

    def __init__(
        self, store: Any, exports: Any, address: int, window: int, fuel: int, trouble: tuple[type[BaseException], ...]
    ) -> None:
        memory = exports["memory"]
        buffer = memory.get_buffer_ptr(store, window, address)
        letterbox = memory.get_buffer_ptr(store, MESSAGE.size, exports["edgeward_letterbox_address"](store))
        # The views keep the store alive, so that none of them ever points to memory that was given back.
        buffer.store = letterbox.store = store
        self.shared = np.frombuffer(buffer, np.uint8)
        self.meter = Meter(fuel=0)
        self._letterbox = memoryview(letterbox).cast("B")
        self._store, self._memory, self._fuel, self._trouble = store, memory, fuel, trouble
        self._invoke, self._stop, self._reason = exports["edgeward_invoke"], exports["edgeward_stop"], ""

    def exchange(self, request: bytes) -> bytes:
        if self._reason:
            raise dead(self._reason)
        self._letterbox[:] = request
        self._store.set_fuel(self._fuel)
        try:
            self._invoke(self._store)
        except self._trouble as error:
            left = self._store.get_fuel()
            why = str(error).strip().splitlines()[-1].strip() if left else f"it used up {self._fuel} units of fuel"
            self._reason = f"the trusted application trapped ({why})"
            raise dead(self._reason) from None
        except BaseException:
            self._reason = "an invocation was interrupted"
            raise
        self.meter.fuel = (self.meter.fuel or 0) + self._fuel - self._store.get_fuel()
        return self._letterbox.tobytes()

    def close(self) -> None:
        if not self._reason:
            self._store.set_fuel(_FUEL_TO_OPEN)
            self._stop(self._store)
            self._reason = "the session is closed"


def _unsealing(key: SecretBytes, digest: bytes, floor: int) -> Any:
    """Return the import that decrypts in place in the module's memory.

    It judges manifest and counter once more: the module might be another application than the manifest's.
    """
    cipher = require("cryptography.hazmat.primitives.ciphers.aead", extra="tee-emul").AESGCM(key.reveal())
    from cryptography.exceptions import InvalidTag

    def unseal(caller: Any, nonce: int, associated: int, associated_size: int, data: int, size: int) -> int:
        memory = caller["memory"]

        def part(address: int, count: int) -> bytes:
            address, count = address & 0xFFFFFFFF, count & 0xFFFFFFFF
            if address + count > memory.data_len(caller):
                raise IndexError("outside the module's memory")
            return bytes(memory.read(caller, address, address + count))

        try:
            sealed = part(data, size + TAG_BYTES)
            extra = part(associated, associated_size)
            if extra[:32] != digest or int.from_bytes(extra[32:], "little") < floor:
                return 0
            plain = cipher.decrypt(part(nonce, 12), sealed, extra)
        except (InvalidTag, ValueError, IndexError):
            return 0
        memory.write(caller, plain, data & 0xFFFFFFFF)
        return 1

    return unseal


def _random(caller: Any, address: int, size: int) -> None:
    memory, address, size = caller["memory"], address & 0xFFFFFFFF, size & 0xFFFFFFFF
    # a hostile module must not make its host draw more than the module can hold
    if address + size > memory.data_len(caller):
        raise IndexError("outside the module's memory")
    memory.write(caller, secrets.token_bytes(size), address)


def _milliseconds(caller: Any) -> int:
    return time.monotonic_ns() // 1_000_000
