"""The tier `optee`: the same trusted application as a source folder for the user's own OP-TEE development kit."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid as uuids
from pathlib import Path
from typing import ClassVar, final

from edgeward.backends.tee.build import fixed_source, sources
from edgeward.backends.tee.session import Session
from edgeward.backends.tee.world import Application, SecureWorld, SecureWorldUnavailable, over_budget
from edgeward.core.errors import ConfigError

KIT = "EDGEWARD_OPTEE_KIT"
HOW_TO = "docs/how-to/build-for-op-tee.md"
_NAMESPACE = uuids.UUID("6d0f4a52-3a6c-5e0b-9d6e-0f5f4f9f3a10")
_STACK_BYTES = 32 << 10
# The kit's allocator keeps records of its own beside each block.
_HEAP_SLACK_BYTES = 4 << 10
_SECONDS_TO_BUILD = 600

_HEADER = """\
/* Properties of this trusted application, read by the kit. */
#ifndef USER_TA_HEADER_DEFINES_H
#define USER_TA_HEADER_DEFINES_H

#define TA_UUID {uuid}
#define TA_FLAGS 0
#define TA_STACK_SIZE {stack}
#define TA_DATA_SIZE {heap}
#define TA_VERSION "1.0"
#define TA_DESCRIPTION "edgeward: one network, sealed weights, label out"

#endif
"""
_CONFIGURATION = """\
/* Fixed with the deployment: which blobs open and what leaves. */
#define EDGEWARD_CONFIGURATION \\
    {{{{{digest}}}, {floor}u, 0u, {policy}u, {label}u}}
"""
_CLIENT = """\
#define EDGEWARD_UUID {uuid}
#define EDGEWARD_ANSWER_BYTES {answer}u
#define EDGEWARD_COMMAND_NOOP 0u
#define EDGEWARD_COMMAND_LOAD 1u
#define EDGEWARD_COMMAND_INFER 2u
#define EDGEWARD_COMMAND_PROVISION 0xE0u
"""
_TA_MAKEFILE = """\
# make CROSS_COMPILE=aarch64-linux-gnu- TA_DEV_KIT_DIR=<your kit>/export-ta_arm64
BINARY = {uuid}
include $(TA_DEV_KIT_DIR)/mk/ta_dev_kit.mk
"""
_TA_SUB = """\
global-incdirs-y += .
{objects}
# The kit's default is to compile for size, which makes byte loops of the kernels.
cflags-y += -O3 -std=gnu11
cflags-$(EDGEWARD_PROVISION) += -DEDGEWARD_PROVISION
"""
_HOST_MAKEFILE = """\
# make CROSS_COMPILE=aarch64-linux-gnu- TEEC_EXPORT=<your client library>/usr
CC = $(CROSS_COMPILE)gcc
edgeward-client: client.c client.h application.h
\t$(CC) -O2 -std=gnu11 -Wall -I$(TEEC_EXPORT)/include -o $@ client.c -L$(TEEC_EXPORT)/lib -lteec
"""
_README = """\
# {uuid}

Two worlds: `ta/` is the trusted application, `host/` the client that runs beside it. Build both against your own kit
(API version 1.3, OP-TEE 4.0 or later; see the first line of each Makefile), sign the application with your own key, and
install it where your secure world looks for applications.

1. In a place you trust, build `ta/` with `EDGEWARD_PROVISION=y`, run `edgeward-client --provision key.bin` once with
   the 32-byte sealing key, and remove that build.
2. Ship `ta/` built without it, and the sealed weights beside it.
3. `edgeward-client weights.sealed taps.bin` prints the answer as hexadecimal bytes; a third argument repeats and times.

The device keeps key, rollback counter and count of inferences under the UUID above. A release under another UUID has
none of them: name your own UUID and keep it, or provision again and know that the older release still opens.

Memory: {heap} bytes of heap and {stack} bytes of stack. The rollback counter is as hard to turn back as the secure
storage of your device; files kept by the normal world can be put back by its owner.
"""


@final
class OpteeWorld(SecureWorld):
    """A secure world on the user's own hardware or emulator; nothing of OP-TEE is in this package.

    Guarantee: whatever the device gives; without secure boot and protected memory its owner can read the secure world.
    """

    tier: ClassVar[str] = "optee"
    notice: ClassVar[str] = "OP-TEE: protects as far as the device's own secure boot, protected memory and storage do"

    def __init__(self, uuid: str = "") -> None:
        """Name the application on the device by `uuid`; empty derives one from the manifest."""
        self._uuid = uuid

    def build(self, application: Application) -> Path:
        """Return the signed `.ta` file, built with the kit that the environment variable EDGEWARD_OPTEE_KIT names.

        Raises: `SecureWorldUnavailable` without a kit or when it does not build.
        """
        kit = os.environ.get(KIT, "")
        if not kit or not (Path(kit) / "mk" / "ta_dev_kit.mk").is_file():
            raise SecureWorldUnavailable(
                "the tier 'optee' needs your own OP-TEE development kit",
                expected=f"{KIT} naming a folder with mk/ta_dev_kit.mk (export-ta_arm64 of your build)",
                came=kit or f"{KIT} is not set",
                fix=f"set {KIT}, see {HOW_TO}; or use the emulated tiers 'wasm' and 'process'",
            )
        folder = Path(tempfile.mkdtemp(prefix="edgeward-optee-"))
        uuid = write_folder(application, folder / "application", self._uuid)
        command = ["make", "-C", str(folder / "application" / "ta"), f"TA_DEV_KIT_DIR={kit}"]
        run = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS_TO_BUILD, check=False)
        made = folder / "application" / "ta" / f"{uuid}.ta"
        if run.returncode or not made.is_file():
            shutil.rmtree(folder, ignore_errors=True)
            came = (run.stderr.strip() or f"exit status {run.returncode}").splitlines()[0]
            fix = "give the kit's cross compiler in CROSS_COMPILE"
            raise SecureWorldUnavailable("the kit did not build the trusted application", came=came, fix=fix)
        return made

    def open_session(self, application: Application) -> Session:
        """Always raises `SecureWorldUnavailable`: the application runs on the device, through its own client."""
        made = self.build(application)
        raise SecureWorldUnavailable(
            "a trusted application runs on its device, not here",
            expected="the device that the kit was made for",
            came=f"{made} was built",
            fix=f"install it there and run edgeward-client beside the sealed weights, see {HOW_TO}",
        )


def uuid_of(identity: str) -> str:
    """Return the UUID under which a device keeps key and counters of a deployment, over all its releases.

    >>> uuid_of("demo") == uuid_of("demo") != uuid_of("other")
    True
    """
    return str(uuids.uuid5(_NAMESPACE, f"identity {identity}"))


def write_folder(application: Application, folder: Path, uuid: str = "") -> str:
    """Write `ta/` (trusted application) and `host/` (client) for the user's kit to `folder`; return the UUID.

    The folder appears whole or not at all and holds neither weights nor keys. The device keeps key and rollback counter
    by UUID: give your own to keep them over releases. Raises: `SecureMemoryExceeded`, `ConfigError` for a UUID that is
    none or a folder that is there already.
    """
    if application.needed_bytes > application.memory_budget:
        raise over_budget(application)
    if folder.exists():
        raise ConfigError("the folder is there already", came=str(folder), fix="choose a new one")
    chosen = _uuid(application, uuid)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for name, text in folder_files(application, chosen).items():
        path = partial / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    os.replace(partial, folder)
    return str(chosen)


def folder_files(application: Application, uuid: uuids.UUID) -> dict[str, str]:
    """Return every file of the folder by its relative path."""
    files = sources(application, "optee")
    figures = {
        "uuid": _initializer(uuid),
        "stack": _STACK_BYTES,
        "heap": application.needed_bytes + _HEAP_SLACK_BYTES,
        "digest": ", ".join(f"0x{byte:02x}" for byte in application.manifest_digest),
        "floor": application.counter_floor,
        "policy": application.policy_code,
        "label": int(application.ends_in_argmax),
        "answer": application.answer_bytes,
    }
    files |= {
        "tee_api.h": fixed_source("kit/tee_api.h"),
        "storage.c": fixed_source("kit/storage.c"),
        "configuration.h": _CONFIGURATION.format(**figures),
        "user_ta_header_defines.h": _HEADER.format(**figures),
    }
    objects = "\n".join(f"srcs-y += {name}" for name in sorted(files) if name.endswith(".c"))
    files |= {"Makefile": _TA_MAKEFILE.format(uuid=uuid), "sub.mk": _TA_SUB.format(objects=objects)}
    return {
        **{f"ta/{name}": text for name, text in files.items()},
        "host/client.c": fixed_source("kit/client.c"),
        "host/client.h": _CLIENT.format(**figures),
        "host/application.h": files["application.h"],
        "host/Makefile": _HOST_MAKEFILE,
        "README.md": _README.format(**{**figures, "uuid": uuid}),
    }


def _uuid(application: Application, uuid: str) -> uuids.UUID:
    try:
        return uuids.UUID(uuid) if uuid else uuids.uuid5(_NAMESPACE, application.manifest_digest.hex())
    except ValueError as error:
        raise ConfigError("this is no UUID", expected="8-4-4-4-12 hexadecimal digits", came=repr(uuid)) from error


def _initializer(uuid: uuids.UUID) -> str:
    time_low, time_mid, time_high, *_ = uuid.fields
    rest = ", ".join(f"0x{byte:02x}" for byte in uuid.bytes[8:])
    return f"{{0x{time_low:08x}, 0x{time_mid:04x}, 0x{time_high:04x}, {{{rest}}}}}"
