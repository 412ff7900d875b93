"""Images in one form: upright, on white, 8 bits a channel. In: a file's bytes. Out: pixels, ink 255 and paper 0.

Transparent pixels become white: the colour stored below them is never seen. Values of more than 8 bits are scaled to 8,
not clipped.
"""

from __future__ import annotations

import struct
import warnings
from io import BytesIO

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from fewshot.base.errors import BadFile

WHITE_16 = 65535
RANGES = {"I": (255, WHITE_16, 2**31 - 1), "F": (1, 255, WHITE_16)}  # values that white can have, by mode of the image
# Pillow raises these for damaged or truncated files
UNREADABLE = (
    OSError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, SyntaxError, EOFError, RuntimeError,
    struct.error, Image.DecompressionBombError,
)  # fmt: skip


def as_pixels(data: bytes, side: int, n_channels: int, where: str) -> UInt8[Tensor, "side side channels"]:
    """Return an image of `side` x `side` with 1 or 3 channels, ink 255 and paper 0; raises BadFile with `where`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata
            with Image.open(BytesIO(data)) as image:
                whole = _on_white(ImageOps.exif_transpose(image)).convert("L" if n_channels == 1 else "RGB")
            small = whole.resize((side, side), Image.Resampling.LANCZOS)
    except UNREADABLE as error:
        reason = "of no known kind" if isinstance(error, UnidentifiedImageError) else str(error)
        raise BadFile(f"{where} is not a readable image ({reason}): repair or remove it") from None
    return 255 - torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8).view(side, side, n_channels)


def _on_white(image: Image.Image) -> Image.Image:
    """Return the image with 8 bits a channel, composited on white."""
    if image.mode.startswith("I") or image.mode == "F":
        return _in_8_bits(image)
    if not image.has_transparency_data:
        return image
    solid = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", solid.size, "white"), solid)


def _in_8_bits(image: Image.Image) -> Image.Image:
    """Return grey values scaled to 8 bits: from 16 bits by their full range, from 32 by the smallest usual range."""
    values = np.asarray(image).astype(np.float64)
    low, high = values.min(), values.max()
    ranges = RANGES.get(image.mode, (WHITE_16,))
    if not 0 <= low <= high <= ranges[-1]:  # a NaN is in no range
        raise ValueError(f"its values go from {low:g} to {high:g}, from 0 to {ranges[-1]} is allowed")
    white = next(most for most in ranges if high <= most)
    if isinstance(image.info.get("transparency"), int):
        values[values == image.info["transparency"]] = white
    return Image.fromarray(np.rint(values * (255 / white)).astype(np.uint8))
