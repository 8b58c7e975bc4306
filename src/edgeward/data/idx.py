"""`mnist` and `fashion_mnist`: the idx format, gzip-compressed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import numpy as np
from jaxtyping import UInt8

from edgeward.data.datasets import DATASETS, Pools, Request
from edgeward.data.files import SourceFile, damaged, read_source
from edgeward.data.images import as_inputs
from edgeward.data.records import Records

MNIST_ORIGIN: Final = "MNIST (LeCun, Cortes, Burges), the four idx .gz files"
FASHION_ORIGIN: Final = "zalandoresearch/fashion-mnist on GitHub, folder data/fashion"

# Of each file: SHA-256 of a .gz in circulation, and of its content, so that a re-compressed copy is as good.
_MNIST: Final = {
    "train-images-idx3-ubyte.gz": (
        "71524e2cd1ad2968737f7f2f2ff69cbfc32df8ccddff51593f7cb2d4e0eb5b64",
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    "train-labels-idx1-ubyte.gz": (
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    "t10k-images-idx3-ubyte.gz": (
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    "t10k-labels-idx1-ubyte.gz": (
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
}
_FASHION: Final = {
    "train-images-idx3-ubyte.gz": (
        "a26751d72d89606ffbfdd4dd5d16911f01e93a7ff4783c95da7307a073d79fa7",
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    "train-labels-idx1-ubyte.gz": (
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
    "t10k-images-idx3-ubyte.gz": (
        "78cb45a589ec14266eab4ac0cb2e9e10a4c076ae2d337fe86383d761bff83f32",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    "t10k-labels-idx1-ubyte.gz": (
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}


def parse_idx(content: bytes, name: str) -> UInt8[np.ndarray, "..."]:
    """Return the uint8 array of an idx file.

    Raises `DataError` where the header is no idx header of bytes or the length differs from it.
    """
    axes = content[3] if len(content) >= 4 else 0
    start = 4 + 4 * axes
    if content[:3] != b"\x00\x00\x08" or not 1 <= axes <= 4 or len(content) < start:
        raise damaged(name, "an idx file of unsigned bytes with 1 to 4 axes", f"{len(content)} bytes of another format")
    shape = tuple(int(n) for n in np.frombuffer(content, dtype=">u4", offset=4, count=axes))
    if math.prod(shape) != len(content) - start:
        raise damaged(name, f"{math.prod(shape)} values as its header says", f"{len(content) - start}")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def _part(
    request: Request, folders: tuple[str, ...], prefix: str, table: Mapping[str, tuple[str, ...]], origin: str
) -> Records:
    arrays = []
    for kind in ("images-idx3", "labels-idx1"):
        name = f"{prefix}-{kind}-ubyte.gz"
        file = SourceFile(tuple(f"{folder}/{name}" for folder in folders), table[name], origin)
        arrays.append(parse_idx(read_source(request.root, file), name))
    return Records.of(as_inputs(arrays[0]), arrays[1], prefix)


@DATASETS.register("mnist")
def mnist(request: Request) -> Pools:
    """Return MNIST: 60000 + 10000 handwritten digits, [1, 28, 28] in [0, 1], ten classes."""
    folders = ("mnist", "MNIST/raw")
    train = _part(request, folders, "train", _MNIST, MNIST_ORIGIN)
    return Pools(train, _part(request, folders, "t10k", _MNIST, MNIST_ORIGIN), classes=10)


@DATASETS.register("fashion_mnist")
def fashion_mnist(request: Request) -> Pools:
    """Return Fashion-MNIST: 60000 + 10000 pictures of clothing, [1, 28, 28] in [0, 1], ten classes.

    Source: Xiao, Rasul, Vollgraf, arXiv:1708.07747.
    """
    folders = ("fashion-mnist", "FashionMNIST/raw")
    train = _part(request, folders, "train", _FASHION, FASHION_ORIGIN)
    return Pools(train, _part(request, folders, "t10k", _FASHION, FASHION_ORIGIN), classes=10)
