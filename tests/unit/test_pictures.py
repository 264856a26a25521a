"""Image files of every kind become the pixels that a viewer shows.

PNG files are written here byte by byte, so that Pillow is not asked what it wrote.
"""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from clockwork_experiments.data import pictures

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
RAMP = np.linspace(0, 65535, 64).round().astype(np.uint16).reshape(8, 8)
"""16-bit greys from black to white."""


def png(
    path: Path, values: np.ndarray, kind: int, bits: int = 8, **chunks: bytes
) -> Path:
    """Write a PNG of values ``(H, W)`` or ``(H, W, C)``."""

    def chunk(name: bytes, data: bytes) -> bytes:
        checked = name + data
        return (
            struct.pack(">I", len(data))
            + checked
            + struct.pack(">I", zlib.crc32(checked))
        )

    height, width = values.shape[:2]
    rows = values.astype(">u2" if bits == 16 else np.uint8).reshape(height, -1)
    body = b"".join(b"\0" + row.tobytes() for row in rows)
    head = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + b"".join(chunk(name.encode(), data) for name, data in chunks.items())
        + chunk(b"IDAT", zlib.compress(body))
        + chunk(b"IEND", b"")
    )
    return path


def read(path: Path) -> np.ndarray:
    """Return what is read, ``(H, W, 3)``."""
    image = pictures.read(path)
    assert image.mode == "RGB"
    found = pictures.pixels(image)
    assert found.dtype == np.uint8 and found.flags["C_CONTIGUOUS"]
    return found.transpose(1, 2, 0)


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values.astype(np.uint8)[..., None], 3, axis=2)


def on_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    part = alpha[..., None] / 255
    return colour * part + 255 * (1 - part)


def close(found: np.ndarray, wanted: np.ndarray, apart: float = 0) -> None:
    """Compare; what is mixed may be rounded in two ways."""
    assert found.shape == wanted.shape
    assert np.abs(found.astype(float) - wanted).max() <= apart


def some(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def test_sixteen_bit_greys_are_scaled(tmp_path):
    wanted = grey((RAMP / 257).round())
    close(read(png(tmp_path / "a.png", RAMP, GREY, 16)), wanted)
    for mode, kind in (("I;16", "<u2"), ("I;16B", ">u2")):
        path = tmp_path / f"{kind[0] == '<'}.tiff"
        data = RAMP.astype(kind).tobytes()
        Image.frombytes(mode, (8, 8), data).save(path)
        close(read(path), wanted)
    (tmp_path / "a.pgm").write_bytes(b"P5 8 8 65535\n" + RAMP.astype(">u2").tobytes())
    close(read(tmp_path / "a.pgm"), wanted)


def test_sixteen_bit_colours_keep_their_high_byte(tmp_path):
    values = np.stack([RAMP, RAMP[::-1], RAMP.T], axis=2)
    close(read(png(tmp_path / "a.png", values, RGB, 16)), values / 257, 1)


def test_floats_from_black_to_white_are_scaled(tmp_path):
    values = (RAMP / 65535).astype(np.float32)
    Image.fromarray(values).save(tmp_path / "a.tiff")
    close(read(tmp_path / "a.tiff"), grey((values * 255).round()))


def test_what_is_transparent_is_white(tmp_path):
    colour, alpha = some(8, 8, 3), some(8, 8, seed=1)
    alpha[0], alpha[1] = 0, 255
    values = np.dstack([colour, alpha])
    found = read(png(tmp_path / "a.png", values, RGBA))
    close(found, on_white(colour, alpha), 1)
    assert (found[0] == 255).all() and (found[1] == colour[1]).all()
    values = np.dstack([colour[..., 0], alpha])
    found = read(png(tmp_path / "b.png", values, GREY_ALPHA))
    close(found, on_white(grey(colour[..., 0]), alpha), 1)
    values = np.dstack([RAMP, alpha.astype(np.uint16) * 257])
    found = read(png(tmp_path / "c.png", values, GREY_ALPHA, 16))
    close(found, on_white(grey(RAMP >> 8), alpha), 2)
    Image.fromarray(np.dstack([colour, alpha]), "RGBA").save(
        tmp_path / "d.webp", lossless=True, exact=True
    )
    close(read(tmp_path / "d.webp"), on_white(colour, alpha), 1)


def test_a_transparent_colour_is_white(tmp_path):
    values = some(8, 8) % 4
    palette = some(4, 3, seed=2)
    found = read(
        png(
            tmp_path / "p.png",
            values,
            PALETTE,
            PLTE=palette.tobytes(),
            tRNS=bytes([255, 0, 128]),
        )
    )
    alpha = np.array([255, 0, 128, 255])[values]
    close(found, on_white(palette[values], alpha), 1)
    found = read(png(tmp_path / "g.png", values * 60, GREY, tRNS=struct.pack(">H", 60)))
    close(found, grey(np.where(values == 1, 255, values * 60)))
    found = read(
        png(
            tmp_path / "w.png",
            RAMP,
            GREY,
            16,
            tRNS=struct.pack(">H", int(RAMP[0, 0])),
        )
    )
    assert (found[0, 0] == 255).all() and (found[-1, -1] == 255).all()
    close(found.reshape(-1, 3)[1:], grey((RAMP / 257).round()).reshape(-1, 3)[1:])
    colours = palette[values]
    first = struct.pack(">HHH", *map(int, colours[0, 0]))
    found = read(png(tmp_path / "c.png", colours, RGB, tRNS=first))
    clear = (colours == colours[0, 0]).all(axis=2)
    close(found, np.where(clear[..., None], 255, colours))


def test_palettes_bits_and_cmyk_become_rgb(tmp_path):
    values, palette = some(8, 8) % 4, some(4, 3, seed=2)
    found = read(png(tmp_path / "p.png", values, PALETTE, PLTE=palette.tobytes()))
    close(found, palette[values])
    bits = some(8, 8) > 127
    Image.fromarray(bits).save(tmp_path / "b.png")
    close(read(tmp_path / "b.png"), grey(bits * 255))
    inks = some(8, 8, 4)
    Image.fromarray(inks, "CMYK").save(tmp_path / "c.tiff")
    cyan, black = inks[..., :3].astype(float), inks[..., 3:].astype(float)
    close(read(tmp_path / "c.tiff"), (255 - cyan) * (255 - black) / 255, 1)


def opencv(path: Path) -> np.ndarray:
    """Read an image as another library does, and lay it on white."""
    values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    values = np.atleast_3d(values / (257 if values.dtype == np.uint16 else 1))
    if values.shape[2] == 1:
        return np.repeat(values, 3, axis=2)
    colour = values[..., 2::-1]
    return on_white(colour, values[..., 3]) if values.shape[2] == 4 else colour


@pytest.mark.parametrize(
    ("mode", "name", "options"),
    [
        ("L", "a.jpg", {}),
        ("RGB", "a.jpg", {"subsampling": 2, "progressive": True}),
        ("CMYK", "a.jpg", {}),
        ("P", "a.gif", {"transparency": 3}),
        ("P", "a.bmp", {}),
        ("1", "a.tiff", {"compression": "group4"}),
        ("RGB", "a.tiff", {"compression": "tiff_lzw"}),
        ("RGBA", "a.png", {}),
        ("RGBA", "a.webp", {}),
        ("RGB", "a.ppm", {}),
    ],
)
def test_another_library_reads_the_same(tmp_path, mode, name, options):
    smooth = Image.fromarray(some(4, 4, 4)).resize((32, 32)).convert("RGB")
    image = smooth.convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize((32, 32)))
    image.save(tmp_path / name, **options)
    close(read(tmp_path / name), opencv(tmp_path / name), 2)


TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: np.rot90(a),
}
"""What each orientation of the EXIF means, by its specification."""


@pytest.mark.parametrize("orientation", [*TURNS, 0, 9, 77])
@pytest.mark.parametrize("kind", ["png", "tiff", "webp"])
def test_a_photograph_is_upright(tmp_path, orientation, kind):
    values = some(8, 16, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{kind}"
    Image.fromarray(values).save(path, exif=exif, lossless=True)
    wanted = TURNS.get(orientation, TURNS[1])(values)
    close(read(path), wanted)
    assert pictures.look(path) == (wanted.shape[1::-1], "RGB")


def test_damaged_exif_is_said_and_the_image_read(tmp_path, caplog):
    path = tmp_path / "a.jpg"
    image = Image.fromarray(grey(np.full((8, 8), 90)))
    image.save(path, exif=b"Exif\0\0MM\0\x2a\xff\xff\xff\xff")
    assert (read(path) == 90).all()
    assert "a.jpg: Corrupt EXIF data." in caplog.text


def test_a_telephones_second_picture_is_not_the_image(tmp_path):
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    path = tmp_path / "a.jpg"
    first.save(path, format="MPO", save_all=True, append_images=[second])
    assert Image.open(path).format == "MPO"
    assert (read(path)[..., 0] > 250).all()


def test_the_middle_square_is_cut():
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 200
    assert (np.asarray(pictures.squared(Image.fromarray(wide), 10)) == 200).all()
    exact = Image.fromarray(wide[:, :20])
    assert pictures.squared(exact, 20) is exact
