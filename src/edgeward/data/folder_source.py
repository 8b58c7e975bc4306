"""`from_image_folder`: the user's own pictures, one folder a class."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from edgeward.core.errors import ConfigError, DataError
from edgeward.core.randomness import Seed
from edgeward.data.datasets import Pools, split_pools
from edgeward.data.files import read_bounded
from edgeward.data.images import decode_image, unit_interval
from edgeward.data.partition import quarters
from edgeward.data.records import Records
from edgeward.data.splits import Splits

SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
LISTED: Final = 50
_FILE_LIMIT: Final = 2**26
_MEMORY_LIMIT: Final = 2**34


def from_image_folder(
    path: Path,
    *,
    seed: Seed,
    size: tuple[int, int] = (32, 32),
    grey: bool = False,
    canaries: int = 200,
    train: int | None = None,
    holdout: int | None = None,
) -> Splits:
    """Read train/<class>/*.png and holdout/<class>/*.png, or <class>/*.png dealt by `seed` (60 % training side).

    Pictures (PNG, JPEG, WebP, BMP) are resized to `size` = (height, width) by area and become [C, H, W] in [0, 1] with
    C = 3, or 1 if `grey`. Classes are numbered in the order of their folder names.

    Raises one `DataError` with every file that cannot be read, and every problem of `Splits.check`.
    """
    if min(size) < 1 or max(size) > 4096:
        raise ConfigError("the image size is out of range", expected="1 to 4096 pixels a side", came=str(size))
    parts = [part for part in ("train", "holdout") if (path / part).is_dir()]
    if len(parts) == 1:
        raise DataError(
            f"the folder {str(path)!r} has {parts[0]}/ alone",
            expected="both train/ and holdout/, or class folders alone",
            came=f"{parts[0]}/",
            fix="add the other folder, or move the class folders up to let a seed deal them",
        )
    listings = {part: _listing(path / part if part else path) for part in (parts or [""])}
    classes = sorted({label for files in listings.values() for _, label in files})
    amount = sum(len(files) for files in listings.values())
    if amount * size[0] * size[1] * 12 > _MEMORY_LIMIT:
        raise DataError(
            f"the pictures of {str(path)!r} do not fit in memory",
            expected=f"at most {_MEMORY_LIMIT} bytes once decoded",
            came=f"{amount} pictures of {size[0]} x {size[1]}",
            fix="choose a smaller size or a sample of the pictures",
        )
    loaded, problems = {}, []
    for part, files in listings.items():
        pixels, bad = _read(files, size, grey)
        problems += bad
        if not bad:
            labels = np.array([classes.index(label) for _, label in files], dtype=np.int64)
            loaded[part] = Records.of(unit_interval(pixels), labels, part or path.name)
    if problems:
        shown = "".join(f"\n    - {text}" for text in problems[:LISTED])
        more = f"\n    - and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
        raise DataError(
            f"{len(problems)} pictures of {str(path)!r} cannot be read:{shown}{more}",
            fix="repair or remove these files",
        )
    if parts:
        pools = Pools(loaded["train"], loaded["holdout"], classes=len(classes))
    else:
        pools = Pools(loaded[""], None, classes=len(classes), sizes=quarters(loaded[""], len(classes)))
    return split_pools(pools, name=path.name, seed=seed, canaries=canaries, train=train, holdout=holdout)


def _listing(folder: Path) -> list[tuple[Path, str]]:
    """Return the pictures one level below `folder` with their class, in the order of their names."""
    try:
        labels = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
        found = [(f, p.name) for p in labels for f in sorted(p.iterdir()) if f.suffix.lower() in SUFFIXES]
    except OSError as error:
        raise DataError(
            f"the folder {str(folder)!r} cannot be listed",
            expected="a folder with one sub-folder for each class",
            came=type(error).__name__,
            fix="check the path and its permissions",
        ) from None
    if not found:
        raise DataError(
            f"no pictures in {str(folder)!r}",
            expected=f"<class>/<picture> with one of {', '.join(SUFFIXES)}",
            came=f"{len(labels)} sub-folders without pictures",
            fix="lay the pictures out as train/<class>/*.png and holdout/<class>/*.png",
        )
    return found


def _read(files: list[tuple[Path, str]], size: tuple[int, int], grey: bool) -> tuple[np.ndarray, list[str]]:
    """Return uint8 pixels [n, C, H, W] and one line for each file that cannot be read."""
    pixels = np.zeros((len(files), 1 if grey else 3, *size), dtype=np.uint8)
    found = [_into(file, pixels[row], grey) for row, (file, _) in enumerate(files)]
    return pixels, [f"{file}: {came}" for (file, _), came in zip(files, found, strict=True) if came]


def _into(file: Path, target: np.ndarray, grey: bool) -> str:
    """Decode and resize one picture into `target` [C, H, W]; return what is wrong with it, or nothing."""
    from PIL import Image

    try:
        image = decode_image(read_bounded(file, _FILE_LIMIT), file.name)
        channels, height, width = target.shape
        flat = image.convert("L" if grey else "RGB").resize((width, height), Image.Resampling.BOX)
        target[:] = np.asarray(flat).reshape(height, width, channels).transpose(2, 0, 1)
    except DataError as error:
        return error.came
    except Exception as error:  # conversions of odd modes fail in their own ways
        return type(error).__name__
    return ""
