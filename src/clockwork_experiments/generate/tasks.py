"""The tasks: what each asks of a UNet; those of Kim et al. 2024, and text-to-image.

- ``edit``: InstructPix2Pix; the image's latents are further input channels, and three
  UNet samples per step guide by text and by image.
- ``control``: ControlNet; the UNet of text-to-image, with a branch of its own.
- ``restoration``: StableSR; SD-2.1-base with SPADE, without guidance.
- ``inpainting``, ``synthesis``: further input channels, without guidance.
- ``text``: text-to-image itself; of an input image the size alone counts.

Nothing here needs torch.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """What a task asks of a UNet.

    Attributes:
        rows: UNet samples per image and sampling step, with guidance where it has any.
        prompted: Whether it takes prompts, and guidance by them; else the empty one.
        conditioned: Whether an image's latents are further input channels.
        branch: Whether ControlNet's branch runs beside the UNet.
        structure: Whether the UNet takes structure features by SPADE.
    """

    rows: int = 1
    prompted: bool = False
    conditioned: bool = False
    branch: bool = False
    structure: bool = False


TASKS: dict[str, Task] = {
    "edit": Task(rows=3, prompted=True, conditioned=True),
    "control": Task(rows=2, prompted=True, branch=True),
    "restoration": Task(structure=True),
    "inpainting": Task(conditioned=True),
    "synthesis": Task(conditioned=True),
    "text": Task(rows=2, prompted=True),
}
"""The tasks by name."""

PROMPTED = tuple(name for name, task in TASKS.items() if task.prompted)
"""Tasks that take prompts; the others take the empty one."""

JOINED = tuple(name for name, task in TASKS.items() if task.conditioned)
"""Tasks whose UNet takes the input's latents as further channels."""


def check_task(name: str) -> None:
    """Refuse a task that there is not.

    Raises:
        ValueError: In one line.
    """
    if name not in TASKS:
        raise ValueError(f"task {name!r} is not one of {', '.join(TASKS)}")


def guided_rows(name: str, guidance: float = 1.0) -> int:
    """Return how many UNet samples a pipeline computes per image and step.

    InstructPix2Pix's computes three at any guidance by the image, 1 included, where
    that without the image cancels.

    Args:
        name: The task.
        guidance: Scale of guidance by the prompt; 1 turns all guidance off.
    """
    return TASKS[name].rows if guidance > 1 else 1
