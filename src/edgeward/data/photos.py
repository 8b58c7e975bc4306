"""`public_photos`: photographs that belong to no task, for everything that must not see private records."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import UInt8

from edgeward.core.errors import DataError
from edgeward.data.files import VARIABLE, data_folder, is_folder, read_bounded
from edgeward.data.images import decode_image

_FOLDER: Final = "imagenet-sample"
_ORIGIN: Final = "github.com/EliSchwartz/imagenet-sample-images, every second photo, short side 256, JPEG"
_DIGEST: Final = "4d805dc70597ec14e0448e698b68c787f4a19e9d7c869f092563ff0da44fdef6"


def public_photos(size: int = 128, *, root: Path | None = None) -> UInt8[np.ndarray, "n 3 size size"]:
    """Return 500 photos, one of every second ImageNet class in the order of the classes, centre crops of `size`.

    The short side becomes 256/224 of `size` (bicubic) before the crop, as evaluation on ImageNet does it. `root` is the
    data folder (default: the environment variable EDGEWARD_DATA).

    Raises `DataError` where the folder is missing or holds other files than the published ones.
    """
    folder = data_folder(root, _FOLDER, _ORIGIN) / _FOLDER
    paths = sorted(folder.glob("*.jpg")) if is_folder(folder) else []
    contents = [read_bounded(path) for path in paths]
    digest = hashlib.sha256(b"".join(hashlib.sha256(c).digest() for c in contents)).hexdigest()
    if digest != _DIGEST:
        raise DataError(
            "the public photos are missing or altered",
            expected=f"500 files in {_FOLDER}/ under the folder that {VARIABLE} (or root=) names, digest {_DIGEST}",
            came=f"{len(paths)} files in {folder}, digest {digest}",
            fix=f"get them from {_ORIGIN}",
        )
    return np.stack([_cropped(c, path.name, size) for c, path in zip(contents, paths, strict=True)])


def _cropped(data: bytes, name: str, size: int) -> UInt8[np.ndarray, "3 size size"]:
    from PIL import Image

    image = decode_image(data, name).convert("RGB")
    scale = size * 256 / 224 / min(image.size)
    wide, high = (max(size, round(extent * scale)) for extent in image.size)
    left, top = (wide - size) // 2, (high - size) // 2
    image = image.resize((wide, high), Image.Resampling.BICUBIC).crop((left, top, left + size, top + size))
    pixels: np.ndarray = np.asarray(image).transpose(2, 0, 1)
    return pixels
