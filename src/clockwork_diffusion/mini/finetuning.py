"""Train what depth-skip leaves of a mini translator a little further.

The published compression needs no training. This is the option beside it: the levels
that are left learn, by the loss that the translator was made with, to do without the
ones that are gone. Only the UNet learns; the text encoder stays as it is.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from clockwork_diffusion.depth_skip import DepthSkipUNet, depth_skip
from clockwork_diffusion.mini.pairs import Pairs
from clockwork_diffusion.mini.translators import TranslatorSpec, train
from clockwork_diffusion.training import Trained
from clockwork_diffusion.translators import JOINED, Translator


@dataclass(frozen=True)
class FineTuneSpec:
    """What is trained further, and how.

    Attributes:
        level: The deepest level that is left.
        recipe: Task, data and recipe. What it says of learning to read is left out:
            the translator can.
    """

    level: int
    recipe: TranslatorSpec

    def __post_init__(self) -> None:
        """Reject tasks whose UNet is not what is trained."""
        if self.recipe.task not in JOINED:
            raise ValueError(
                f"task {self.recipe.task!r} is not one of {', '.join(JOINED)}: "
                "of the others, the UNet is never trained"
            )


class Cut(nn.Module):
    """A translator without its deep levels; of it, the UNet learns."""

    def __init__(self, pipe: Any, level: int) -> None:
        """Copy a translator's UNet down to a level.

        Args:
            pipe: UNet and text encoder; not changed.
            level: The deepest level to keep.
        """
        super().__init__()
        # The deep levels are not even copied.
        cut = copy.deepcopy(depth_skip(pipe.unet, level))
        self.unet: DepthSkipUNet = cut.float().requires_grad_(True)
        self.text_encoder = copy.deepcopy(pipe.text_encoder).requires_grad_(False)

    def forward(
        self,
        noisy: torch.Tensor,
        timesteps: torch.Tensor,
        inputs: torch.Tensor,
        tokens: torch.Tensor,
    ) -> torch.Tensor:
        """Predict v for noisy and input latents ``(N, 4, h, w)``, tokens ``(N, L)``."""
        text = self.text_encoder(tokens).last_hidden_state
        v: torch.Tensor = self.unet(torch.cat([noisy, inputs], 1), timesteps, text)[0]
        return v


def finetune(
    spec: FineTuneSpec,
    translator: Translator,
    make_pairs: Callable[[], Pairs],
    state: Path,
    work: str = "",
) -> Trained:
    """Train what is left of a translator further.

    Args:
        spec: Level, data and recipe.
        translator: A trained one; not changed.
        make_pairs: Makes the training pairs.
        state: Where the resumable state lies.
        work: Says what else decides the outcome: level, translator, code.

    Returns:
        The trained UNet, a `DepthSkipUNet`, to be saved as such.

    Raises:
        ValueError: If the translator is for another task, or the level is none.
    """
    if translator.task != spec.recipe.task:
        raise ValueError(
            f"a translator for {translator.task} is not trained for {spec.recipe.task}"
        )
    model = Cut(translator.pipe, spec.level)
    trained = train(
        spec.recipe,
        translator.pipe,
        make_pairs,
        state,
        work=work,
        model=model,
        tuned=True,
    )
    assert isinstance(trained.module, Cut)
    unet = trained.module.unet.eval().requires_grad_(False)
    return Trained(unet, trained.history, trained.seconds, trained.times)
