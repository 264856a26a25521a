"""Read image files as every viewer shows them: upright, RGB, 8 bits a channel.

The orientation in the EXIF is applied; 16-bit greys and floats from 0 to 1 are scaled;
what is transparent is laid on white; palettes and CMYK become RGB. What this cannot be
done to is refused in one line that names the file, before it is decoded where its head
tells.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

log = logging.getLogger(__name__)

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What is read, by Pillow's names; others may start programs (EPS), or hold vectors."""

PIXELS = 89_478_485
"""Pixels of the largest image; Pillow warns of more, since they take much memory."""

_ORIENTATION = 0x0112


def read(path: Path) -> Image:
    """Read an image.

    Raises:
        ValueError: In one line, if it cannot be read.
    """
    with _opened(path) as image:
        _check_head(image)
        image.load()
        turned = _turned(image)
        return _on_white(_scaled(turned))


def look(path: Path) -> tuple[tuple[int, int], str]:
    """Return an image's width and height, upright, and its mode, from its head alone.

    Raises:
        ValueError: In one line, if it cannot be read.
    """
    with _opened(path) as image:
        _check_head(image)
        width, height = image.size
        # Of a TIFF, Pillow has turned the size already.
        sideways = image.format != "TIFF" and _orientation(image) > 4
        return ((height, width) if sideways else (width, height)), image.mode


def check_sizes(listed: Path, found: Mapping[str, Path], size: int) -> None:
    """Look at the heads of images that must be used as they are.

    Args:
        listed: The list that names them, for messages.
        found: Where each lies, by its name in the list.
        size: Side in pixels.

    Raises:
        ValueError: In one line, if one cannot be read; or if some are of another size
            or mode, naming all of them.
    """
    wrong = []
    for name, place in found.items():
        (width, height), mode = look(place)
        if mode != "RGB" or (width, height) != (size, size):
            wrong.append(f"{name} ({width}×{height} {mode})")
    if wrong:
        raise ValueError(
            f"{listed}: {len(wrong)} of {len(found)} images are not {size}×{size} RGB: "
            f"{', '.join(wrong)}; `convert: true` converts them"
        )


def squared(image: Image, size: int) -> Image:
    """Return an image cut to its middle square, and resized."""
    from PIL.Image import Resampling

    if image.size == (size, size):
        return image
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    # Cut before, since a resampling filter would look over the edge.
    cut = image.crop((left, top, left + side, top + side))
    return cut.resize((size, size), Resampling.LANCZOS)


def pixels(image: Image) -> np.ndarray:
    """Return an image's pixels, uint8 ``(3, H, W)``."""
    import numpy as np

    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


@contextmanager
def _opened(path: Path) -> Iterator[Image]:
    """Open an image file; whatever is wrong with it is said in one line."""
    from PIL import Image as pillow

    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    # Pillow raises many kinds for damaged files.
    try:
        with warnings.catch_warnings(record=True) as noticed:
            warnings.simplefilter("always")
            with pillow.open(path, formats=FORMATS) as opened:
                yield opened
        # Of sizes, which are checked, it warns too.
        odd = [str(each.message) for each in noticed if "EXIF" in str(each.message)]
        if odd:
            log.warning("%s: %s; the rest is read", path, " ".join(odd[0].split()))
    except pillow.UnidentifiedImageError as bad:
        raise ValueError(
            f"{path} is not a readable image: it is none of {', '.join(FORMATS)}, or "
            "damaged"
        ) from bad
    except (Exception, pillow.DecompressionBombError) as bad:
        why = " ".join(str(bad).split()) or type(bad).__name__
        raise ValueError(f"{path} is not a readable image: {why}") from bad


def _check_head(image: Image) -> None:
    if image.width * image.height > PIXELS:
        raise ValueError(
            f"it has {image.width}×{image.height} pixels, and at most {PIXELS} are read"
        )
    # A telephone's JPEG may have further pictures behind the one that is shown.
    frames = getattr(image, "n_frames", 1) if image.format != "MPO" else 1
    if frames > 1:
        raise ValueError(f"it has {frames} frames, and one picture is needed")


def _orientation(image: Image) -> int:
    """Return how an image is to be turned, 1 to 8, as its EXIF says."""
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception as bad:  # Pillow raises many kinds for damaged EXIF
        warnings.warn(f"Corrupt EXIF data: {bad}", stacklevel=2)
        return 1
    return found if found in range(1, 9) else 1


def _turned(image: Image) -> Image:
    """Return an image upright, which Pillow's own function fails at if EXIF is odd."""
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    orientation = _orientation(image)
    if orientation == 1:
        return image
    turned = image.transpose(turns[orientation])
    turned.format, turned.info = image.format, image.info
    return turned


def _scaled(image: Image) -> Image:
    """Return an image of 8 bits a channel, in any mode that Pillow converts to RGB."""
    import numpy as np
    from PIL import Image as pillow

    if image.mode != "F" and not image.mode.startswith("I"):
        return image
    values = np.asarray(image).astype(np.float64)
    if image.mode == "F":
        least, most = values.min(), values.max()
        if not (least >= 0 and most <= 1):
            raise ValueError(
                f"its floats run from {least:g} to {most:g}, and 0 to 1 is black to "
                "white"
            )
        scale = 255.0
    elif image.mode == "I" and image.format not in ("PNG", "PPM"):
        raise ValueError("it has 32-bit whole numbers, whose white is not known")
    else:
        scale = 255 / 65535
    grey = pillow.fromarray((values * scale).round().astype(np.uint8), "L")
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        opaque = np.where(values == clear, 0, 255).astype(np.uint8)
        grey.putalpha(pillow.fromarray(opaque, "L"))
    return grey


def _on_white(image: Image) -> Image:
    """Return an image in RGB, on white where it is transparent."""
    from PIL import Image as pillow

    clear: Any = image.info.get("transparency")
    if isinstance(clear, tuple) and max(clear) > 255:
        raise ValueError("one of its 16-bit colours is transparent, which is not read")
    if clear is None and "A" not in image.mode.upper().replace("LAB", ""):
        return image.convert("RGB")
    layer = image.convert("RGBA")
    white = pillow.new("RGBA", layer.size, "white")
    return pillow.alpha_composite(white, layer).convert("RGB")
