"""The same drawing is the same example, in whatever kind of image it is kept."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from fewshot.base.errors import BadFile
from fewshot.meta.tasks.images import as_pixels

SIDE = 9


def drawing(size: int = SIDE) -> Image.Image:
    """Black strokes on white paper, no two sides alike."""
    image = Image.new("L", (size, size), 255)
    ImageDraw.Draw(image).line((1, 1, size - 3, 3), 0, 2)
    ImageDraw.Draw(image).line((2, 2, 2, size - 2), 0, 1)
    return image


def saved(image: Image.Image, kind: str = "png", **options) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def read(data: bytes, n_channels: int = 1) -> torch.Tensor:
    return as_pixels(data, SIDE, n_channels, "it.png")


def with_alpha(mode: str) -> Image.Image:
    """The strokes on transparent ground, whose colour is black too."""
    alpha = Image.eval(drawing(), lambda value: 255 - value)
    return Image.merge("LA", (Image.new("L", alpha.size), alpha)).convert(mode)


def palette(**options) -> bytes:
    """Index 0 is transparent black, index 1 opaque black."""
    image = Image.fromarray((np.asarray(drawing()) == 0).astype(np.uint8), "P")
    image.putpalette([0, 0, 0, 0, 0, 0])
    return saved(image, **{"transparency": b"\x00\xff", **options})


def sixteen(low: int = 0, high: int = 65535) -> Image.Image:
    return Image.fromarray(np.where(np.asarray(drawing()) == 0, low, high).astype(np.uint16))


def wide(kind: type, high: float, low: float = 0) -> Image.Image:
    return Image.fromarray(np.where(np.asarray(drawing()) == 0, low, high).astype(kind))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(rows: np.ndarray, *, depth: int, colour: int, extra: bytes = b"") -> bytes:
    """A PNG of any depth and kind of colour; Pillow writes few of them."""
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    head = struct.pack(">IIBBBBB", SIDE, len(rows), depth, colour, 0, 0, 0)
    parts = (chunk(b"IHDR", head), extra, chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def grey_alpha_16() -> bytes:
    alpha = np.where(np.asarray(drawing()) == 0, 65535, 0)
    return png_of(np.stack([np.zeros_like(alpha), alpha], -1).astype(">u2"), depth=16, colour=4)


def colour_16() -> bytes:
    grey = np.where(np.asarray(drawing()) == 0, 0, 65535)
    return png_of(np.stack([grey] * 3, -1).astype(">u2"), depth=16, colour=2)


def grey_16_with_a_transparent_value() -> bytes:
    """Paper has the value 7, which counts as transparent."""
    grey = np.where(np.asarray(drawing()) == 0, 0, 7)
    return png_of(grey.astype(">u2"), depth=16, colour=0, extra=chunk(b"tRNS", struct.pack(">H", 7)))


def turned(orientation: int, undo: Image.Transpose, image: Image.Image | None = None) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved((image or drawing()).transpose(undo), "png", exif=exif)


T = Image.Transpose
SAME: dict[str, Callable[[], bytes]] = {
    "grey and alpha": lambda: saved(with_alpha("LA")),
    "colour and alpha": lambda: saved(with_alpha("RGBA")),
    "colour and alpha in webp": lambda: saved(with_alpha("RGBA"), "webp", lossless=True, exact=True),
    "colour and alpha in tiff": lambda: saved(with_alpha("RGBA"), "tiff"),
    "a palette with transparency": palette,
    "a palette with one transparent entry": lambda: palette(transparency=0),
    "a gif with transparency": lambda: saved(Image.open(BytesIO(palette())), "gif", transparency=0),
    "grey with a transparent value": lambda: saved(_keyed("L"), transparency=9),
    "colour with a transparent value": lambda: saved(_keyed("RGB"), transparency=(9, 9, 9)),
    "16 bits": lambda: saved(sixteen()),
    "16 bits in tiff": lambda: saved(sixteen(), "tiff"),
    "16 bits, the other end first": lambda: saved(_big_endian(), "tiff"),
    "16 bits and alpha": grey_alpha_16,
    "16 bits of colour": colour_16,
    "16 bits with a transparent value": grey_16_with_a_transparent_value,
    "32 bits with the range of 16": lambda: saved(wide(np.int32, 65535), "tiff"),
    "32 bits with the range of 8": lambda: saved(wide(np.int32, 255), "tiff"),
    "32 bits with their own range": lambda: saved(wide(np.int32, 2**31 - 1), "tiff"),
    "fractions up to 1": lambda: saved(wide(np.float32, 1), "tiff"),
    "fractions up to 255": lambda: saved(wide(np.float32, 255), "tiff"),
    "1 bit": lambda: saved(drawing().convert("1")),
    "1 bit in a palette": lambda: saved(drawing().convert("P")),
    "colour": lambda: saved(drawing().convert("RGB")),
    "CMYK": lambda: saved(drawing().convert("CMYK"), "tiff"),
    "turned by a quarter in its EXIF": lambda: turned(6, T.ROTATE_90),
    "turned by a half in its EXIF": lambda: turned(3, T.ROTATE_180),
    "mirrored in its EXIF": lambda: turned(2, T.FLIP_LEFT_RIGHT),
    "transparent and turned": lambda: turned(6, T.ROTATE_90, with_alpha("RGBA")),
    "16 bits and turned": lambda: turned(8, T.ROTATE_270, sixteen()),
    "a bitmap": lambda: saved(drawing(), "bmp"),
}


def _keyed(mode: str) -> Image.Image:
    """Paper has the value 9, which counts as transparent."""
    return Image.eval(drawing(), lambda value: 9 if value else 0).convert(mode)


def _big_endian() -> Image.Image:
    grey = np.where(np.asarray(drawing()) == 0, 0, 65535).astype(">u2")
    return Image.frombytes("I;16B", (SIDE, SIDE), grey.tobytes())


@pytest.mark.parametrize("data", SAME.values(), ids=SAME)
def test_the_same_drawing_gives_the_same_pixels(data):
    wanted = 255 - torch.from_numpy(np.array(drawing()))[..., None]
    assert torch.equal(read(data()), wanted)
    assert torch.equal(read(data(), 3), wanted.expand(-1, -1, 3))


def test_half_transparent_ink_is_half_as_dark():
    half = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 51))
    assert read(saved(half)).unique().tolist() == [51]


def test_values_between_black_and_white_keep_their_place():
    assert read(saved(sixteen(5_000, 56_000))).unique().tolist() == [255 - 218, 255 - 19]
    assert read(saved(wide(np.float32, 0.8, 0.2), "tiff")).unique().tolist() == [51, 204]


@pytest.mark.parametrize(
    "image",
    [wide(np.float32, np.nan), wide(np.float32, np.inf), wide(np.float32, 255, -1), wide(np.int32, 255, -7)],
    ids=["no number", "infinite", "negative", "negative whole numbers"],
)
def test_values_that_are_no_shade_are_refused(image):
    with pytest.raises(BadFile, match=r"it\.png is not a readable image"):
        read(saved(image, "tiff"))


def test_what_pillow_raises_of_damaged_files_is_one_error(tmp_path: Path):
    """Bytes of small images of many kinds are changed at random; each is read or refused."""
    rng, n_refused = random.Random(0), 0
    kinds = [data() for data in SAME.values()] + [saved(drawing(), "tiff", compression="tiff_lzw")]
    kinds.append(saved(drawing(), "jpeg"))
    for data in kinds * 12:
        changed = bytearray(data)
        for _ in range(rng.randint(1, 6)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        try:
            read(bytes(changed[: rng.choice([None, rng.randrange(len(changed))])]))
        except BadFile:
            n_refused += 1
    assert n_refused > len(kinds)


@pytest.mark.parametrize("raised", [TypeError, KeyError, IndexError, struct.error, OverflowError, ZeroDivisionError,
                                    AttributeError, RuntimeError, SyntaxError, NotImplementedError])  # fmt: skip
def test_whatever_pillow_raises_names_the_file(raised, monkeypatch):
    def broken(*given):
        raise raised("odd")

    monkeypatch.setattr(Image, "open", broken)
    with pytest.raises(BadFile, match=r"it\.png is not a readable image"):
        read(b"")
