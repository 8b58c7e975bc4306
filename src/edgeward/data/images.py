"""Pixels in, records out: uint8 images of any usual layout as float32 [n, C, H, W] in [0, 1]."""

from __future__ import annotations

import io
import warnings
from typing import Any, Final

import numpy as np
from jaxtyping import UInt8

from edgeward.data.files import damaged

FORMATS: Final = ("PNG", "JPEG", "WEBP", "BMP")
PIXELS: Final = 2**26
"""No single image is decoded beyond this many pixels."""


def channels_first(pixels: UInt8[np.ndarray, "n ..."]) -> np.ndarray:
    """Return [n, H, W] as [n, 1, H, W] and [n, H, W, C] as [n, C, H, W].

    Of four axes the last one holds the channels where it is 1, 3 or 4 and less than the second one.
    """
    if pixels.ndim == 3:
        return pixels[:, None]
    if pixels.ndim == 4 and pixels.shape[3] in (1, 3, 4) and pixels.shape[3] < pixels.shape[1]:
        moved: np.ndarray = pixels.transpose(0, 3, 1, 2)
        return moved
    return pixels


def unit_interval(pixels: UInt8[np.ndarray, "*any"]) -> np.ndarray:
    """Return float32 pixels divided by 255, in the same layout."""
    scaled: np.ndarray = np.ascontiguousarray(pixels).astype(np.float32) / np.float32(255)
    return scaled


def decode_image(data: bytes, name: str) -> Any:
    """Return a decoded `PIL.Image.Image` of one of `FORMATS`.

    Raises `DataError` where the bytes are no such image, are cut off, or hold more than 2^26 pixels.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            if image.width * image.height <= PIXELS:
                image.load()
                return image
            came = f"{image.width} x {image.height} pixels"
    except Exception as error:  # each decoder has its own errors for damaged input
        came = type(error).__name__
    raise damaged(name, f"a {', '.join(FORMATS)} image of at most {PIXELS} pixels", came) from None


def as_inputs(values: Any) -> Any:
    """Return bytes with two or more axes per record as images in [0, 1]; anything else as it came."""
    if isinstance(values, np.ndarray) and values.dtype == np.uint8 and values.ndim >= 3:
        return unit_interval(channels_first(values))
    return values
