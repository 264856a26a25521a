"""Adaptors φ: estimate r_out of this step from that of the previous one (Eq. 2).

Every adaptor is called as ``adaptor(r_in, r_out, t_emb, text_emb)`` with

- ``r_in``: features entering ε_L at this step, ``(N, c_in, h, w)``;
- ``r_out``: features that left ε_L at the previous step, ``(N, c_out, h, w)``;
- ``t_emb``: the UNet's time embedding of this step, ``(N, E)``;
- ``text_emb``: pooled text embedding, ``(N, P)``;

and returns an estimate of this step's r_out, ``(N, c_out, h, w)``. Its ``config`` names
the cut; ``is_identity`` tells the callers that they may reuse what they have instead.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin, UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from clockwork_diffusion import storage
from clockwork_diffusion.split import check_cut

SD_WIDTH = 384
"""Channels inside the ResNet adaptor of a UNet whose first level has `SD_CHANNELS`.

Not printed; the paper's 14M parameters and GFLOP totals lead to it.
"""
SD_CHANNELS = 320


class IdentityAdaptor(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Reuse r_out as it is; the adaptor of the paper's official release."""

    is_identity = True

    @register_to_config
    def __init__(self, cut: str = "stage1") -> None:
        """Remember the cut."""
        super().__init__()

    def forward(
        self,
        r_in: torch.Tensor,
        r_out: torch.Tensor,
        t_emb: torch.Tensor,
        text_emb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return ``r_out``."""
        return r_out


class ResNetAdaptor(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """The paper's default adaptor: two ResBlocks at half resolution.

    concat(r_in, r_out) → strided convolution, plus a projection of the text embedding →
    ResBlocks with the time embedding → transposed convolution, plus r_out.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        time_channels: int,
        text_channels: int,
        width: int = SD_WIDTH,
        blocks: int = 2,
        groups: int = 32,
        cut: str = "stage1",
        made_for: dict[str, Any] | None = None,
    ) -> None:
        """Build the adaptor.

        Args:
            in_channels: Channels of r_in.
            out_channels: Channels of r_out.
            time_channels: Channels E of the time embedding.
            text_channels: Channels P of the pooled text embedding.
            width: Channels inside.
            blocks: Number of ResBlocks.
            groups: Groups of their normalisation.
            cut: The cut that the adaptor works at.
            made_for: What it was trained for (model, scheduler, steps, clock).
        """
        super().__init__()
        self.down = nn.Conv2d(
            in_channels + out_channels, width, kernel_size=3, stride=2, padding=1
        )
        self.text = nn.Linear(text_channels, width)
        self.middle = nn.ModuleList(
            ResnetBlock2D(
                in_channels=width, temb_channels=time_channels, groups=groups, eps=1e-5
            )
            for _ in range(blocks)
        )
        self.up = nn.ConvTranspose2d(
            width, out_channels, kernel_size=4, stride=2, padding=1
        )
        # Start as the identity, so that the first update cannot make things worse.
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)  # type: ignore[arg-type]

    def forward(
        self,
        r_in: torch.Tensor,
        r_out: torch.Tensor,
        t_emb: torch.Tensor,
        text_emb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Estimate this step's r_out; see the module's docstring for the shapes."""
        if text_emb is None:
            raise ValueError("the ResNet adaptor needs a pooled text embedding")
        hidden = self.down(torch.cat([r_in, r_out], dim=1))
        hidden = hidden + self.text(text_emb)[:, :, None, None]
        for block in self.middle:
            hidden = block(hidden, t_emb)
        height, width = r_out.shape[-2:]
        # An odd height or width comes back one larger.
        correction: torch.Tensor = self.up(hidden)[..., :height, :width]
        return r_out + correction


KINDS: dict[str, type[ModelMixin]] = {
    "identity": IdentityAdaptor,
    "resnet": ResNetAdaptor,
}


def build_adaptor(
    kind: str,
    unet: UNet2DConditionModel,
    cut: str,
    text_channels: int,
    made_for: dict[str, Any] | None = None,
) -> ModelMixin:
    """Build an untrained adaptor whose width follows the UNet's.

    Args:
        kind: A key of `KINDS`.
        unet: The UNet that it is for.
        cut: A key of `clockwork_diffusion.split.CUTS`.
        text_channels: Channels of the pooled text embedding.
        made_for: What it will be trained for; saved with it.

    Raises:
        ValueError: If the kind or the cut is unknown.
    """
    level = check_cut(unet, cut)
    if kind not in KINDS:
        raise ValueError(f"adaptor kind {kind!r} is not one of {', '.join(KINDS)}")
    if kind == "identity":
        return IdentityAdaptor(cut=cut)
    channels = unet.config.block_out_channels
    groups = unet.config.norm_num_groups
    width = max(1, round(SD_WIDTH * channels[0] / SD_CHANNELS / groups)) * groups
    return ResNetAdaptor(
        in_channels=channels[level - 1],
        out_channels=channels[level],
        time_channels=unet.time_embedding.linear_2.out_features,
        text_channels=text_channels,
        width=width,
        groups=groups,
        cut=cut,
        made_for=made_for,
    )


def load_adaptor(folder: Path) -> ModelMixin:
    """Load an adaptor saved by ``save_pretrained``.

    Raises:
        ValueError: If the folder holds no adaptor, or its weights are damaged.
    """
    config = storage.read_json(storage.existing(folder / "config.json"))
    kinds = {kind.__name__: kind for kind in KINDS.values()}
    name = config.get("_class_name")
    if name not in kinds:
        raise ValueError(f"{folder} holds {name!r}, not one of {', '.join(kinds)}")
    storage.check_weights(folder)
    adaptor: ModelMixin = kinds[name].from_pretrained(folder, local_files_only=True)
    return adaptor.eval()
