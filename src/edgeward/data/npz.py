"""Reading NumPy archives without pickle and without trusting what their headers declare."""

from __future__ import annotations

import ast
import io
import math
import warnings
import zipfile
from typing import Final

import numpy as np

from edgeward.core.errors import DataError
from edgeward.data.files import LIMIT, damaged

_MAGIC: Final = b"\x93NUMPY"


def read_npz(data: bytes, name: str, *, limit: int = 4 * LIMIT) -> dict[str, np.ndarray]:
    """Return the numeric arrays of an .npz by key; arrays of text are left out.

    Raises `DataError` where the archive is damaged, holds pickled objects, or unpacks beyond `limit` bytes.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [m for m in archive.infolist() if m.filename.endswith(".npy")]
            # ZipExtFile never yields more than file_size, so the declared sizes bound the memory.
            if sum(m.file_size for m in members) > limit:
                raise damaged(name, f"arrays of at most {limit} bytes in total", "more (a decompression bomb?)")
            contents = {m.filename.removesuffix(".npy"): archive.read(m) for m in members}
    except DataError:
        raise
    except Exception as error:  # zipfile, zlib, lzma and struct each have their own errors for damaged input
        raise damaged(name, "an .npz archive of NumPy arrays", type(error).__name__) from None
    arrays = {key: read_npy(content, f"{name}:{key}") for key, content in contents.items()}
    return {key: array for key, array in arrays.items() if array is not None}


def read_npy(content: bytes, name: str) -> np.ndarray | None:
    """Return the array of one .npy file, or None where it holds text; the header is parsed as a literal only."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return _parse(content)
    except Exception as error:  # headers are hostile text: any failure to parse them means a damaged file
        raise damaged(name, "a NumPy array of numbers (pickled objects are refused)", type(error).__name__) from None


def _parse(content: bytes) -> np.ndarray | None:
    if content[:6] != _MAGIC or len(content) < 12:
        raise ValueError
    wide = 2 if content[6] == 1 else 4
    start = 8 + wide + int.from_bytes(content[8 : 8 + wide], "little")
    if start > min(len(content), 10_000):
        raise ValueError
    header = ast.literal_eval(content[8 + wide : start].decode("latin1").strip())
    if not isinstance(header["descr"], str) or not isinstance(header["fortran_order"], bool):
        raise ValueError
    kind, shape = np.dtype(header["descr"]), header["shape"]
    if kind.kind in "SU":
        return None
    whole = isinstance(shape, tuple) and all(type(n) is int and 0 <= n < 2**40 for n in shape)
    if kind.kind not in "fiub" or not whole or len(shape) > 16:
        raise ValueError
    if len(content) - start != math.prod(shape) * kind.itemsize:
        raise ValueError
    flat = np.frombuffer(content, dtype=kind, offset=start)
    array: np.ndarray = flat.reshape(shape, order="F" if header["fortran_order"] else "C")
    return array
