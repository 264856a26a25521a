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

from clockwork_diffusion.depth_skip import depth_skip
from clockwork_experiments.generate.tasks import JOINED
from clockwork_experiments.generate.translate import Translator
from clockwork_experiments.mini.translators import Joined, TranslatorSpec, train
from clockwork_experiments.train.training import Trained
from clockwork_experiments.world.pairs import Pairs


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


def cut(pipe: Any, level: int) -> Joined:
    """Return a translator without its deep levels, whose UNet learns.

    Args:
        pipe: UNet and text encoder; copied, the deep levels not even that.
        level: The deepest level to keep.
    """
    unet = copy.deepcopy(depth_skip(pipe.unet, level)).float().requires_grad_(True)
    return Joined(unet, pipe.text_encoder, learns=False)


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
    model = cut(translator.pipe, spec.level)
    trained = train(
        spec.recipe,
        translator.pipe,
        make_pairs,
        state,
        work=work,
        model=model,
        tuned=True,
    )
    assert isinstance(trained.module, Joined)
    unet = trained.module.unet.eval().requires_grad_(False)
    return Trained(unet, trained.history, trained.seconds, trained.times)
