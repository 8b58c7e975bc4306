"""`SplitManifest`: what a split deployment consists of and declares; its digest binds the sealed weights to it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final, get_args

from edgeward.backends.cleartext.container import Malformed, canonical_json, read_json
from edgeward.backends.tee.assets import AssetMatrix
from edgeward.backends.tee.deployment import Border, OutputPolicy, SplitDeployment, Traffic, Transfer
from edgeward.codegen.integer import IntegerValue
from edgeward.core.errors import ConfigError, VerificationFailed

SCHEMA = "edgeward.split/1"
MAX_MANIFEST_BYTES, MAX_TAPS, MAX_BYTES = 1 << 20, 64, 1 << 31

_SIZES = ("weights", "arena", "budget")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}(/[A-Za-z0-9][A-Za-z0-9._-]{0,63}){0,2}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_IDENTITY = re.compile(r"[a-z0-9][a-z0-9._-]{0,89}")


@final
@dataclass(frozen=True)
class SplitManifest:
    """The contents of a split's `manifest.json`; canonical, so that equal manifests are equal bytes.

    `identity` says which deployment this is a release of, whatever its strategy is called: the device keeps rollback
    counter and query count under it. `files` are the SHA-256 of the normal world's network, of every C source and of
    the card; the sealed weights are not among them, because they are bound to this manifest the other way round (and a
    digest of the weights would confirm guesses). `sizes`: bytes of "weights", "arena" and the memory "budget" of the
    secure world. `counter` is the rollback counter the weights are sealed with. `strategy` is plain data for people,
    never interpreted.
    """

    name: str
    files: Mapping[str, str]
    border: Border
    transfer: Transfer
    traffic: Traffic
    sizes: Mapping[str, int]
    counter: int
    assets: AssetMatrix
    strategy: Mapping[str, Any] = field(default_factory=dict)
    identity: str = ""
    schema: str = SCHEMA

    def __post_init__(self) -> None:
        """Check the identity, which becomes the name of a file. Raises: `ConfigError`."""
        if not _IDENTITY.fullmatch(self.identity):
            expected = "lower-case letters, digits, '.', '_' and '-', at most 90, the first a letter or digit"
            raise ConfigError("this cannot identify a deployment", expected=expected, came=repr(self.identity)[:120])

    @property
    def policy(self) -> OutputPolicy:
        """What leaves the secure world."""
        return self.border.policy

    @property
    def query_limit(self) -> int | None:
        """How many inferences a device answers."""
        return self.border.query_limit

    def to_json(self) -> dict[str, Any]:
        """Return the plain form."""
        border = self.border
        plain_border = {
            "taps": [_value_to_json(value) for value in border.taps],
            "logits": _value_to_json(border.logits),
            "classes": border.classes,
            "policy": border.policy,
            "ends_in_argmax": border.ends_in_argmax,
            "query_limit": border.query_limit,
        }
        return {
            "schema": self.schema,
            "name": self.name,
            "identity": self.identity,
            "files": dict(self.files),
            "border": plain_border,
            "transfer": self.transfer,
            "traffic": self.traffic.to_json(),
            "sizes": dict(self.sizes),
            "counter": self.counter,
            "assets": self.assets.to_json(),
            "strategy": dict(self.strategy),
        }

    def to_bytes(self) -> bytes:
        """Return the one canonical form."""
        return (canonical_json(self.to_json()) + "\n").encode("ascii")

    def digest(self) -> bytes:
        """Return the SHA-256 of the canonical form: 32 bytes."""
        return hashlib.sha256(self.to_bytes()).digest()

    @classmethod
    def from_bytes(cls, data: bytes) -> SplitManifest:
        """Read a manifest of foreign origin. Raises: `VerificationFailed` for anything but a canonical, valid one."""
        try:
            if len(data) > MAX_MANIFEST_BYTES:
                raise Malformed("longer than 1 MiB")
            found = _read(read_json(data))
            if found.to_bytes() != data:
                raise Malformed("not in canonical form")
        except (Malformed, ConfigError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise VerificationFailed(
                "the manifest of the split deployment cannot be read",
                expected=f"a canonical manifest of schema {SCHEMA}",
                came=f"{type(error).__name__}: {error}".splitlines()[0][:200],
                fix="copy the bundle again from where it was written",
            ) from None
        return found


def manifest_of(
    deployment: SplitDeployment, files: Mapping[str, bytes], sizes: Mapping[str, int], counter: int, identity: str = ""
) -> SplitManifest:
    """Return the manifest of a deployment whose parts in clear are `files` (path -> content).

    `identity` is that of former releases of the same deployment. Empty takes one from the record and the classes alone:
    releases that answer the same question share a counter then, which refuses too much rather than too little.
    """
    digests = {path: hashlib.sha256(content).hexdigest() for path, content in sorted(files.items())}
    return SplitManifest(
        deployment.name,
        digests,
        deployment.border,
        deployment.transfer,
        deployment.traffic,
        dict(sizes),
        counter,
        deployment.assets,
        dict(deployment.strategy),
        identity or _same_question(deployment),
    )


def _same_question(deployment: SplitDeployment) -> str:
    plain = [list(deployment.normal.input_shape()), deployment.border.classes]
    return "question-" + hashlib.sha256(canonical_json(plain).encode()).hexdigest()[:32]


def _value_to_json(value: IntegerValue) -> dict[str, Any]:
    return {**vars(value), "shape": list(value.shape)}


def _read(plain: Any) -> SplitManifest:
    _require(isinstance(plain, dict) and plain.get("schema") == SCHEMA, "another schema")
    border, traffic, files, sizes = plain["border"], plain["traffic"], plain["files"], plain["sizes"]
    _require(isinstance(files, dict) and 0 < len(files) <= 256, "no files, or too many")
    _require(all(_FILE.fullmatch(path) for path in files), "a file outside the bundle")
    _require(all(isinstance(d, str) and _DIGEST.fullmatch(d) for d in files.values()), "a digest that is none")
    _require(set(sizes) == set(_SIZES) and all(_count(n, MAX_BYTES) for n in sizes.values()), "impossible sizes")
    _require(0 < len(border["taps"]) <= MAX_TAPS, "no taps, or too many")
    _require(border["policy"] in get_args(OutputPolicy) and plain["transfer"] in get_args(Transfer), "unknown policy")
    _require(type(border["ends_in_argmax"]) is bool and _count(border["classes"], 1 << 20), "impossible classes")
    _require(set(traffic) == {"one_way", "switches", "bytes", "returned_bytes"}, "impossible traffic")
    _require(type(traffic["one_way"]) is bool, "impossible traffic")
    _require(all(_count(traffic[k], MAX_BYTES) for k in ("switches", "bytes", "returned_bytes")), "impossible traffic")
    _require(_count(plain["counter"], (1 << 64) - 1), "an impossible counter")
    _require(
        isinstance(plain["name"], str) and 0 < len(plain["name"]) <= 100 and plain["name"].isprintable(), "no name"
    )
    limit = border["query_limit"]
    _require(limit is None or (_count(limit, (1 << 64) - 1) and limit > 0), "an impossible query limit")
    _require(isinstance(plain["identity"], str), "no identity")
    _require(isinstance(plain["strategy"], dict), "a strategy that is not a table")
    return SplitManifest(
        plain["name"],
        files,
        Border(
            tuple(_value(value) for value in border["taps"]),
            _value(border["logits"]),
            border["classes"],
            border["policy"],
            border["ends_in_argmax"],
            limit,
        ),
        plain["transfer"],
        Traffic(**traffic),
        sizes,
        plain["counter"],
        AssetMatrix.from_json(plain["assets"]),
        plain["strategy"],
        plain["identity"],
    )


def _value(plain: Mapping[str, Any]) -> IntegerValue:
    shape, scale, zero = plain["shape"], plain["scale"], plain["zero_point"]
    good = isinstance(shape, list) and 0 < len(shape) <= 3 and all(_count(n, 1 << 16) and n for n in shape)
    good = good and isinstance(scale, float) and 0 < scale < float("inf") and type(zero) is int and -128 <= zero <= 127
    _require(good and isinstance(plain["name"], str), "a tap of impossible form")
    return IntegerValue(plain["name"], tuple(shape), scale, zero)


def _count(number: Any, most: int) -> bool:
    return type(number) is int and 0 <= number <= most


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise Malformed(problem)
