"""Check a folder of captions, and of images if there are any, before it is read.

``prompts.txt`` holds one caption per line, UTF-8, none empty; ``images/``, if it is
there, one file per caption in the order of their names.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from tqdm import tqdm

from clockwork_experiments.base import storage

ENDS = "\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
"""Characters besides the newline at which Python ends a line."""

LONGEST = 10_000
"""Characters that a caption may have; more is a file of another kind."""


def check(folder: Path, count: int, opened: bool = False) -> tuple[int, int]:
    """Make sure that a folder is as `clockwork_experiments.data.datasets` reads it.

    Args:
        folder: The folder.
        count: How many captions it must have at least.
        opened: Whether to open each image too.

    Returns:
        How many captions there are, and how many images.

    Raises:
        ValueError: In one line: what is wrong, and in which line or file.
    """
    path = storage.existing(folder / "prompts.txt")
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        row = error.object[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}: line {row} is not UTF-8 text") from error
    text = text.replace("\r\n", "\n")
    # What reads the file ends lines at these too, and who writes it does not.
    odd = next((c for c in text if c in ENDS), "")
    if odd:
        row = text[: text.index(odd)].count("\n") + 1
        raise ValueError(
            f"{path}: line {row} has the character U+{ord(odd):04X}, which ends a "
            "line; write a space instead"
        )
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise ValueError(f"{path}: line {number} is empty")
        if len(line) > LONGEST:
            raise ValueError(
                f"{path}: line {number} has {len(line)} characters, and at most "
                f"{LONGEST} are allowed"
            )
    if len(lines) < count:
        raise ValueError(f"{path} has {len(lines)} captions, and {count} are needed")
    images = folder / "images"
    if not images.is_dir():
        return len(lines), 0
    files = sorted(images.iterdir())
    if len(files) != len(lines):
        raise ValueError(
            f"{images} holds {len(files)} files, and {path} {len(lines)} captions"
        )
    for file in tqdm(files, desc="images", disable=None) if opened else ():
        try:
            with Image.open(file) as image:
                image.verify()
        except (OSError, SyntaxError) as error:
            raise ValueError(f"{file} is not a readable image: {error}") from error
    return len(lines), len(files)
