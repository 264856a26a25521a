"""What is counted of a UNet, and of what its light passes run."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class AdaptorKind:
    """An adaptor as far as its cost goes.

    Attributes:
        kind: A key of `clockwork_diffusion.adaptors.KINDS`, or ``branch``.
        cut: A key of `clockwork_diffusion.unet.CUTS`.
        inputs: Which of `clockwork_diffusion.contract.INPUTS` it looks at; all if
            empty.
        branch: The skip connection at which ``branch`` reuses features.
        rank: Of the map of ``low_rank``.
    """

    kind: str
    cut: str = "stage1"
    inputs: tuple[str, ...] = ()
    branch: int = 0
    rank: int = 0


@dataclass(frozen=True)
class FlopsSpec:
    """What to count.

    Attributes:
        backbone: A key of `clockwork_experiments.cost.architectures.BACKBONES`.
        tokens: Length of a prompt.
        text_channels: Width of the pooled text embedding.
        adaptors: The adaptors by id.
        levels: Levels at which runs keep the UNet.
    """

    backbone: str
    tokens: int
    text_channels: int
    adaptors: dict[str, AdaptorKind]
    levels: tuple[int, ...] = field(default=(), kw_only=True)
