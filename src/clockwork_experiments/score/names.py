"""What each score is called, its unit, its digits and which way is better: once.

Tables, figures and claims read it here. A score that is added is one entry here, and
its function.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """A score of images, a number per image or per set of them.

    Attributes:
        label: What the reader sees in a heading.
        digits: Decimals shown.
        higher_is_better: None where neither direction is better.
        unit: Of the number, such as ``dB``.
        prose: What it is called in a sentence; the label if left out.
        published: What the papers' own stand under; the label if left out.
    """

    label: str
    digits: int
    higher_is_better: bool | None
    unit: str = ""
    prose: str = ""
    published: str = ""

    @property
    def name(self) -> str:
        """Label and unit, such as ``PSNR to target, dB``."""
        return ", ".join(filter(None, (self.label, self.unit)))

    @property
    def arrow(self) -> str:
        """Return an arrow that says which way is better, after a space; or nothing."""
        return {True: " ↑", False: " ↓", None: ""}[self.higher_is_better]

    @property
    def header(self) -> str:
        """Name and arrow: the heading of a column of ours."""
        return self.name + self.arrow

    @property
    def published_header(self) -> str:
        """Return the heading of a column of printed values."""
        unit = f", {self.unit}" if self.unit else ""
        return f"{self.published or self.label}{unit} (published){self.arrow}"

    @property
    def sign(self) -> int:
        """Return 1 where higher is better, −1 where lower is, 0 where neither is."""
        return {True: 1, False: -1, None: 0}[self.higher_is_better]


SCORES: dict[str, Score] = {
    "frechet": Score("Fréchet", 2, False, published="FID"),
    # Of the Fréchet distance's features, where the reference renders the same captions.
    "kernel": Score("Kernel distance", 3, False),
    # Renderings are not the least, as they vary: less error may be less variety.
    "caption_error": Score("Feature error", 3, None),
    "clip": Score("CLIP", 4, True),
    "clip_above_chance": Score("CLIP above chance", 4, True),
    # Of scenes alone, by a judge of renderings.
    "as_captioned": Score("As captioned", 1, True, "%", "share as captioned"),
    "agreement": Score("Agreement", 1, True, "%", "agreement of shadows and twins"),
    "aesthetic": Score("CLIP aesthetic", 2, True),
    "clip_image": Score("CLIP_I", 4, True),
    "clip_direction": Score("CLIP_D", 4, True),
    "structure": Score("DINO", 4, False, prose="DINO distance"),
    "lpips": Score("LPIPS to target", 4, False, prose="LPIPS to the target"),
    "psnr": Score("PSNR to target", 2, True, "dB", "PSNR to the target"),
    "psnr_to_teacher": Score("PSNR to teacher", 2, True, "dB", "PSNR to the teacher"),
    "psnr_to_reference": Score(
        "PSNR to reference", 2, True, "dB", "PSNR to many steps"
    ),
    "psnr_to_whole": Score(
        "PSNR to whole UNet", 2, True, "dB", "PSNR to the whole UNet"
    ),
    "psnr_to_true": Score("PSNR to exact edit", 2, True, "dB"),
    "psnr_to_source": Score("PSNR to source", 2, None, "dB"),
}
"""By the key that they have in files of scores.

What is called ``psnr_to_teacher`` in files of translations and of searches is the PSNR
to the whole UNet, and to the reference of many steps.
"""
