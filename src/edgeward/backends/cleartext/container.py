"""The safetensors container, written the same way every time and read without trust."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, final

import numpy as np

from edgeward.core.errors import ModelError

MAX_HEADER_BYTES = 1 << 24
_DTYPES: Mapping[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "U8": np.dtype("u1")}


@final
class Malformed(Exception):
    """A file of foreign origin breaks the format; the door that reads it turns this into one `ModelError`."""


def canonical_json(plain: Any) -> str:
    """Return the one JSON text of a plain value: sorted keys, no spaces, ASCII, finite numbers only.

    >>> canonical_json({"b": [1, 2], "a": 0.5})
    '{"a":0.5,"b":[1,2]}'
    """
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)


def read_json(text: str | bytes) -> Any:
    """Parse JSON of foreign origin: no NaN, no bottomless nesting, no duplicate keys."""

    def refuse(name: str) -> None:
        raise Malformed(f"the JSON holds {name}")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) != len(pairs):
            raise Malformed("the JSON repeats a key")
        return dict(pairs)

    try:
        return json.loads(text, parse_constant=refuse, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"the JSON cannot be read ({type(error).__name__})") from error


def write_container(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """Return a safetensors file; the same tensors and metadata always give the same bytes.

    Shapes: any; dtypes float32 and uint8. Floats come first, so that they stay aligned.
    """
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    chunks: list[bytes] = []
    offset = 0
    for name, array in sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])):
        kind = next((kind for kind, dtype in _DTYPES.items() if dtype == array.dtype), None)
        if kind is None:
            raise ModelError(f"tensor {name} cannot be stored", expected="float32 or uint8", came=str(array.dtype))
        chunks.append(np.ascontiguousarray(array).astype(_DTYPES[kind], copy=False).tobytes())
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [offset, offset + len(chunks[-1])]}
        offset += len(chunks[-1])
    text = json.dumps(header, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *chunks])


def read_container(data: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file of foreign origin.

    Guarantee: allocates no more than a small multiple of the file's size; every tensor lies inside the file and the
    tensors cover it without gap or overlap. Raises: `Malformed`.
    """
    if len(data) < 8:
        raise Malformed("the file is shorter than its header")
    length = int.from_bytes(data[:8], "little")
    if length > min(MAX_HEADER_BYTES, len(data) - 8):
        raise Malformed(f"the header claims {length} bytes")
    header = read_json(data[8 : 8 + length])
    if not isinstance(header, dict):
        raise Malformed("the header is not an object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise Malformed("the metadata is not a table of texts")
    body = memoryview(data)[8 + length :]
    places = sorted((_place(name, entry), name) for name, entry in header.items())
    expected_start, tensors = 0, {}
    for (start, stop, kind, shape), name in places:
        if start != expected_start or stop > len(body):
            raise Malformed(f"tensor {name[:80]} does not follow the one before it")
        expected_start = stop
        tensors[name] = np.frombuffer(body[start:stop], _DTYPES[kind]).reshape(shape)
    if expected_start != len(body):
        raise Malformed(f"{len(body) - expected_start} bytes belong to no tensor")
    return tensors, metadata


def _place(name: str, entry: Any) -> tuple[int, int, str, tuple[int, ...]]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise Malformed(f"tensor {name[:80]} has no dtype, shape and place")
    kind, shape, place = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or kind not in _DTYPES:
        raise Malformed(f"tensor {name[:80]} has an unknown dtype")
    if not _counts(shape) or len(shape) > 8 or not _counts(place) or len(place) != 2:
        raise Malformed(f"tensor {name[:80]} has a malformed shape or place")
    if place[1] - place[0] != math.prod(shape) * _DTYPES[kind].itemsize:
        raise Malformed(f"tensor {name[:80]} has another size than its shape says")
    return place[0], place[1], kind, tuple(shape)


def _counts(numbers: Any) -> bool:
    return isinstance(numbers, list) and all(type(n) is int and 0 <= n < 2**40 for n in numbers)
