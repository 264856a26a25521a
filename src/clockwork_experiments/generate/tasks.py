"""The tasks: what each asks of a UNet; those of Kim et al. 2024, and text-to-image.

- ``edit``: InstructPix2Pix; the image's latents are further input channels, and three
  UNet samples per step guide by text and by image.
- ``control``: ControlNet; the UNet of text-to-image, with a branch of its own.
- ``restoration``: StableSR; SD-2.1-base with SPADE, without guidance.
- ``inpainting``, ``synthesis``: further input channels, without guidance.
- ``text``: text-to-image itself, from the same loop; of an input image the size alone
  counts.

Nothing here needs torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Row(NamedTuple):
    """What one row of an image's batch is given: the input image, the prompt."""

    image: bool
    text: bool


@dataclass(frozen=True)
class Task:
    """What a task asks of a UNet.

    Attributes:
        rows: UNet samples per image and sampling step, in the order in which guidance
            builds on them.
        conditioned: Whether an image's latents are further input channels.
        branch: Whether ControlNet's branch runs beside the UNet.
        structure: Whether the UNet takes structure features by SPADE.
    """

    rows: tuple[Row, ...]
    conditioned: bool = False
    branch: bool = False
    structure: bool = False


_NEITHER = Row(image=False, text=False)
_IMAGE = Row(image=True, text=False)
_BOTH = Row(image=True, text=True)

TASKS: dict[str, Task] = {
    "edit": Task((_NEITHER, _IMAGE, _BOTH), conditioned=True),
    "control": Task((_IMAGE, _BOTH), branch=True),
    "restoration": Task((_IMAGE,), structure=True),
    "inpainting": Task((_IMAGE,), conditioned=True),
    "synthesis": Task((_IMAGE,), conditioned=True),
    "text": Task((_NEITHER, Row(image=False, text=True))),
}
"""The tasks by name."""

PROMPTED = tuple(name for name, task in TASKS.items() if task.rows[-1].text)
"""Tasks that take prompts; the others take the empty one."""


def check_task(name: str) -> None:
    """Refuse a task that there is not.

    Raises:
        ValueError: In one line.
    """
    if name not in TASKS:
        raise ValueError(f"task {name!r} is not one of {', '.join(TASKS)}")


def guidance_scales(name: str, text: float, image: float) -> tuple[float, ...]:
    """Return a task's scales of guidance, each from one of its rows to the next.

    Args:
        name: The task.
        text: Scale of guidance by the prompt, s_T.
        image: Scale of guidance by the input image, s_I.
    """
    scales = (image, text)
    return scales[len(scales) + 1 - len(TASKS[name].rows) :]


def guided_rows(
    name: str, text: float = 1.0, image: float = 1.0, *, all_rows: bool = False
) -> tuple[Row, ...]:
    """Return what is computed per image and step: those rows that have a weight.

    Args:
        name: The task.
        text: Scale of guidance by the prompt, s_T.
        image: Scale of guidance by the input image, s_I.
        all_rows: Keep the rows that cancel, too.
    """
    rows = TASKS[name].rows
    if all_rows:
        return rows
    scales = guidance_scales(name, text, image)
    weights = [a - b for a, b in zip((1.0, *scales), (*scales, 0.0), strict=True)]
    return tuple(row for row, w in zip(rows, weights, strict=True) if w != 0)
