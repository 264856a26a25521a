"""The networks of the paper's adaptors φ, and of ours; `contract` says what one is.

Each estimates r_out of this step from that of the previous one (Eq. 2).
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin, UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.resnet import ResnetBlock2D
from diffusers.utils import SAFETENSORS_WEIGHTS_NAME
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from clockwork_diffusion.contract import INPUTS, ages_of, check_inputs
from clockwork_diffusion.predictors.linear import LinearAdaptor
from clockwork_diffusion.predictors.taylor import TaylorAdaptor
from clockwork_diffusion.unet import check_cut

SD_WIDTH = 384
"""Channels inside the ResNet adaptor of a UNet whose first level has `SD_CHANNELS`.

Not printed; the paper's 14M parameters and GFLOP totals lead to it.
"""
SD_CHANNELS = 320

AGE_CHANNELS = 64
"""Sines and cosines that `ResNetGapAdaptor` is told an age by."""

UNET_SIZES: dict[str, tuple[int, int]] = {"unet": (640, 4), "unet_light": (96, 2)}
"""C and number N of ResBlocks of the UNet adaptors for SD's UNet."""


class IdentityAdaptor(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Reuse r_out as it is; the adaptor of the paper's official release."""

    is_identity = True
    history = 1
    inputs = ("r_out",)

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


class ExtrapolationAdaptor(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Continue r_out along a line through the last two full passes; no weights.

    Ours, not the paper's. After one full pass only, it is the identity.
    """

    history = 2
    inputs = ("r_out",)

    @register_to_config
    def __init__(self, cut: str = "stage1") -> None:
        """Remember the cut."""
        super().__init__()

    def forward(
        self,
        r_in: torch.Tensor | None,
        r_out: torch.Tensor,
        t_emb: torch.Tensor | None,
        text_emb: torch.Tensor | None = None,
        ages: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Extrapolate in log-SNR; see the contract for the shapes."""
        return extrapolate(r_out, ages)


def extrapolate(r_out: torch.Tensor, ages: torch.Tensor | None) -> torch.Tensor:
    """Continue r_out along a line through the last two full passes.

    Args:
        r_out: That of the last full pass and of the one before it, ``(2, N, c, h, w)``.
        ages: How far each of the two lies back in log-SNR, ``(2,)`` or ``(2, N)``; only
            their ratio counts.

    Raises:
        ValueError: If there are no ages, or not two full passes.
    """
    if ages is None or r_out.dim() != 5:
        raise ValueError(
            "the extrapolation adaptor needs r_out of two full passes and their "
            f"ages, not r_out of shape {tuple(r_out.shape)} and ages {ages}"
        )
    newest, older = r_out
    ages = ages.to(newest.device, torch.float32)
    gap = ages[1] - ages[0]
    # A gap of 0 says that there is one full pass: its slope is 0, whatever divides.
    factor = ages[0] / torch.where(gap == 0, torch.ones_like(gap), gap)
    return newest + (newest - older) * factor.to(newest.dtype).view(-1, 1, 1, 1)


class _LearnedAdaptor(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """What learned adaptors have in common: the choice of inputs."""

    history = 1
    inputs: tuple[str, ...]
    text: nn.Linear | None

    def _choose(
        self, inputs: Sequence[str], in_channels: int, out_channels: int
    ) -> int:
        """Keep a choice of inputs, and return the channels of its features."""
        self.inputs = check_inputs(inputs)
        # A loaded configuration holds a list.
        self.register_to_config(inputs=self.inputs)
        channels = {"r_in": in_channels, "r_out": out_channels}
        return sum(channels.get(name, 0) for name in self.inputs)

    def _start(self, last: nn.ConvTranspose2d) -> None:
        """Set the last layer to zero where its output is added to r_out.

        Training then starts from the identity, and the first update cannot make things
        worse.
        """
        if "r_out" in self.inputs:
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def _features(
        self,
        r_in: torch.Tensor | None,
        r_out: torch.Tensor | None,
        text_emb: torch.Tensor | None,
    ) -> torch.Tensor:
        """Join the chosen features along the channels."""
        given = {"r_in": r_in, "r_out": r_out, "text": text_emb}
        for name in self.inputs:
            if given[name] is None:
                what = "a pooled text embedding" if name == "text" else name
                raise ValueError(f"this {type(self).__name__} needs {what}")
        chosen = [given[name] for name in self.inputs if name != "text"]
        return torch.cat(chosen, dim=1)  # type: ignore[arg-type]

    def _add_text(
        self, hidden: torch.Tensor, text_emb: torch.Tensor | None
    ) -> torch.Tensor:
        """Add the projected text embedding, if text is an input."""
        if self.text is None:
            return hidden
        assert text_emb is not None
        projected: torch.Tensor = self.text(text_emb * self.text_scale)
        return hidden + projected[:, :, None, None]

    def _finish(
        self, output: torch.Tensor, features: torch.Tensor, r_out: torch.Tensor | None
    ) -> torch.Tensor:
        """Cut the output to size, and add r_out if it is an input."""
        height, width = features.shape[-2:]
        # An odd height or width comes back larger.
        output = output[..., :height, :width]
        if r_out is None or "r_out" not in self.inputs:
            return output
        return r_out + output


class ResNetAdaptor(_LearnedAdaptor):
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
        inputs: Sequence[str] = INPUTS,
        pooling: str | dict[str, Any] | None = None,
        text_scale: float = 1.0,
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
            made_for: What it was trained for; see `clockwork_diffusion.made_for`.
            inputs: Which of `INPUTS` it looks at. One left out is neither concatenated
                nor projected, and without r_out there is no residual (Table S2).
            pooling: How the text embeddings that it was trained with are made; see
                `clockwork_diffusion.pooling`. None if it looks at no text, or whoever
                calls it has to know.
            text_scale: What text embeddings are multiplied by. Ours have unit length;
                those of CLIP before normalisation are about nine times as long.
        """
        super().__init__()
        self.text_scale = text_scale
        channels = self._choose(inputs, in_channels, out_channels)
        self.down = nn.Conv2d(channels, width, kernel_size=3, stride=2, padding=1)
        self.text = nn.Linear(text_channels, width) if "text" in self.inputs else None
        self.middle = nn.ModuleList(
            ResnetBlock2D(
                in_channels=width, temb_channels=time_channels, groups=groups, eps=1e-5
            )
            for _ in range(blocks)
        )
        self.up = nn.ConvTranspose2d(
            width, out_channels, kernel_size=4, stride=2, padding=1
        )
        self._start(self.up)
        self._extend(time_channels)

    def _extend(self, time_channels: int) -> None:
        """Add what a kind derived from this one has besides."""

    def forward(
        self,
        r_in: torch.Tensor | None,
        r_out: torch.Tensor | None,
        t_emb: torch.Tensor,
        text_emb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Estimate this step's r_out; see the contract for the shapes."""
        features = self._features(r_in, r_out, text_emb)
        hidden = self._add_text(self.down(features), text_emb)
        for block in self.middle:
            hidden = block(hidden, t_emb)
        return self._finish(self.up(hidden), features, r_out)


class ResNetGapAdaptor(ResNetAdaptor):
    """The ResNet adaptor, told how far back its r_out lies: one for many clocks.

    Ours, not the paper's. Its r_out is always that of the last full pass, never an
    estimate, and that pass's age in log-SNR is embedded as a time step is, and added to
    the time embedding. It is trained on pairs of any gap, of several numbers of steps.
    """

    ages_in = "log_snr"
    any_gap = True

    def _extend(self, time_channels: int) -> None:
        # Ages are of the order of 1, and time steps of that of 100.
        self.age = Timesteps(AGE_CHANNELS, True, 0, scale=100)
        self.gap = TimestepEmbedding(AGE_CHANNELS, time_channels)

    def forward(
        self,
        r_in: torch.Tensor | None,
        r_out: torch.Tensor | None,
        t_emb: torch.Tensor,
        text_emb: torch.Tensor | None = None,
        ages: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Estimate this step's r_out; see the contract for the shapes."""
        if ages is None or r_out is None or r_out.dim() != 5:
            raise ValueError(
                f"{type(self).__name__} needs r_out of the last full pass and its age"
            )
        age = self.age(ages[0].float().expand(len(t_emb)).to(t_emb.device))
        told = t_emb + self.gap(age.to(t_emb.dtype))
        return super().forward(r_in, r_out[0], told, text_emb)


class ResNetExtrapolationAdaptor(ResNetAdaptor):
    """The ResNet adaptor, started from the linear extrapolation of r_out.

    Ours, not the paper's. What the ResNet adaptor does with r_out of the previous step,
    this one does with `extrapolate`'s estimate: it sees that, and corrects it. Its
    layout and its cost are the same; untrained it is the extrapolation exactly.
    """

    history = 2

    def forward(
        self,
        r_in: torch.Tensor | None,
        r_out: torch.Tensor | None,
        t_emb: torch.Tensor,
        text_emb: torch.Tensor | None = None,
        ages: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Estimate this step's r_out; see the contract for the shapes."""
        if r_out is None:
            raise ValueError(f"this {type(self).__name__} needs r_out")
        return super().forward(r_in, extrapolate(r_out, ages), t_emb, text_emb)


class UNetAdaptor(_LearnedAdaptor):
    """The paper's UNet adaptor: two down- and two upsampling modules, no attention.

    concat(r_in, r_out) → two strided convolutions → N ResBlocks with the time embedding
    → two transposed convolutions, plus r_out (Fig. S2).

    The paper prints this sketch, C and N, 152M and 3M parameters, and the totals of
    Table 3. The rest is our choice, and leads to those figures within 2 %: C channels
    between the outer modules and 2C in the middle; kernels of 2×2 outside, and inside
    those of the ResNet adaptor; the ResBlocks in the middle alone; the text added after
    the first module, as there; one skip connection, by addition, between the levels of
    C channels; normalisation and SiLU before each module but the first.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        time_channels: int,
        text_channels: int,
        width: int = UNET_SIZES["unet"][0],
        blocks: int = UNET_SIZES["unet"][1],
        groups: int = 32,
        cut: str = "stage1",
        made_for: dict[str, Any] | None = None,
        inputs: Sequence[str] = INPUTS,
        pooling: str | dict[str, Any] | None = None,
        text_scale: float = 1.0,
    ) -> None:
        """Build the adaptor; see `ResNetAdaptor`, whose ``width`` is C here."""
        super().__init__()
        self.text_scale = text_scale
        channels = self._choose(inputs, in_channels, out_channels)
        middle = 2 * width
        self.down = nn.Conv2d(channels, width, kernel_size=2, stride=2)
        self.text = nn.Linear(text_channels, width) if "text" in self.inputs else None
        self.down_inner = nn.Sequential(
            nn.GroupNorm(groups, width),
            nn.SiLU(),
            nn.Conv2d(width, middle, kernel_size=3, stride=2, padding=1),
        )
        self.middle = nn.ModuleList(
            ResnetBlock2D(
                in_channels=middle, temb_channels=time_channels, groups=groups, eps=1e-5
            )
            for _ in range(blocks)
        )
        self.up_inner = nn.Sequential(
            nn.GroupNorm(groups, middle),
            nn.SiLU(),
            nn.ConvTranspose2d(middle, width, kernel_size=4, stride=2, padding=1),
        )
        self.up_norm = nn.GroupNorm(groups, width)
        self.up = nn.ConvTranspose2d(width, out_channels, kernel_size=2, stride=2)
        self._start(self.up)

    def forward(
        self,
        r_in: torch.Tensor | None,
        r_out: torch.Tensor | None,
        t_emb: torch.Tensor,
        text_emb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Estimate this step's r_out; see the contract for the shapes."""
        features = self._features(r_in, r_out, text_emb)
        height, width = features.shape[-2:]
        hidden = features
        if height % 4 or width % 4:
            # Both levels must halve, or the skip connection would not fit.
            hidden = F.pad(hidden, (0, -width % 4, 0, -height % 4), mode="replicate")
        skip = self._add_text(self.down(hidden), text_emb)
        hidden = self.down_inner(skip)
        for block in self.middle:
            hidden = block(hidden, t_emb)
        hidden = self.up_inner(hidden) + skip
        output = self.up(F.silu(self.up_norm(hidden)))
        return self._finish(output, features, r_out)

    def layout(self, size: int) -> dict[str, Any]:
        """Describe the modules in the order that data pass them, as Figure S2 does.

        Args:
            size: Height and width of r_in and r_out.
        """
        half, quarter = size // 2, size // 4
        width, middle = self.down.out_channels, 2 * self.down.out_channels

        def module(label: str, kind: str, *leaving: int, **more: Any) -> dict[str, Any]:
            channels, size = leaving
            known = {"label": label, "kind": kind, "channels": channels, "size": size}
            return {**known, **more}

        blocks = len(self.middle)
        return {
            "in_channels": self.config.in_channels,
            "out_channels": self.config.out_channels,
            "size": size,
            "modules": [
                module("down 1", "down", width, half, text=self.text is not None),
                module("down 2", "down", middle, quarter),
                module("ResBlock", "block", middle, quarter, repeat=blocks, time=True),
                module("up 1", "up", width, half),
                module("up 2", "up", self.config.out_channels, size),
            ],
            "skips": [[0, 3]],
            "residual": "r_out" in self.inputs,
        }


KINDS: dict[str, type[ModelMixin]] = {
    "identity": IdentityAdaptor,
    "resnet": ResNetAdaptor,
    "unet": UNetAdaptor,
    "unet_light": UNetAdaptor,
    "extrapolation": ExtrapolationAdaptor,
    "resnet_extrapolation": ResNetExtrapolationAdaptor,
    "resnet_gap": ResNetGapAdaptor,
    "taylor": TaylorAdaptor,
    "affine": LinearAdaptor,
    "low_rank": LinearAdaptor,
}
"""Adaptors by kind; the first four are the paper's, the others are ours."""


def build_adaptor(
    kind: str,
    unet: UNet2DConditionModel,
    cut: str,
    text_channels: int,
    made_for: dict[str, Any] | None = None,
    inputs: Sequence[str] = INPUTS,
    pooling: str | dict[str, Any] | None = None,
    **more: Any,
) -> ModelMixin:
    """Build an untrained adaptor whose width follows the UNet's.

    Args:
        kind: A key of `KINDS`, or what `class_of` takes.
        unet: The UNet that it is for.
        cut: A key of `clockwork_diffusion.unet.CUTS`.
        text_channels: Channels of the pooled text embedding.
        made_for: What it will be trained for; saved with it.
        inputs: Which of `INPUTS` it looks at, if it is learned.
        pooling: How its text embeddings are made; see `clockwork_diffusion.pooling`.
        **more: What else its class takes, such as the ``rank`` of ``low_rank``.

    Raises:
        ValueError: If the kind, the cut or an input is unknown, or the kind leaves no
            choice of inputs.
    """
    level, chosen = check_cut(unet, cut), class_of(kind)
    if not is_learned(kind):
        if check_inputs(inputs) != INPUTS:
            raise ValueError(f"adaptor kind {kind!r} leaves no choice of inputs")
        return chosen(cut=cut, **more)
    if ages_of(chosen) is not None and "r_out" not in inputs:
        raise ValueError(f"adaptor kind {kind!r} needs r_out among its inputs")
    channels = unet.config.block_out_channels
    given = {
        "in_channels": channels[level - 1],
        "out_channels": channels[level],
        "time_channels": unet.time_embedding.linear_2.out_features,
        "cut": cut,
        "made_for": made_for,
        "inputs": inputs,
        "pooling": pooling,
        **more,
    }
    if issubclass(chosen, LinearAdaptor):
        if kind == "affine" and given.get("rank"):
            raise ValueError("adaptor kind 'affine' has rank 0; use 'low_rank'")
        return chosen(**given)
    groups = unet.config.norm_num_groups
    sizes = {"width": SD_WIDTH}
    if kind in UNET_SIZES:
        sizes["width"], sizes["blocks"] = UNET_SIZES[kind]
    scale = channels[0] / SD_CHANNELS
    sizes["width"] = max(1, round(sizes["width"] * scale / groups)) * groups
    adaptor = chosen(text_channels=text_channels, groups=groups, **given, **sizes)
    if kind not in KINDS:
        adaptor.register_to_config(kind=kind)  # for `load_adaptor`
    return adaptor


def class_of(kind: str) -> Any:
    """Return the class of a kind; of one's own, ``my_package.my_module:MyAdaptor``.

    One's own is a `ModelMixin` and `ConfigMixin` with ``history`` and ``inputs``, as
    those here are, and takes what `build_adaptor` gives.

    Raises:
        ValueError: If there is no such kind, or no such class.
    """
    if kind in KINDS:
        return KINDS[kind]
    module, colon, name = kind.partition(":")
    if not colon:
        raise ValueError(
            f"adaptor kind {kind!r} is not one of {', '.join(KINDS)}, "
            "nor of the form my_package.my_module:MyAdaptor"
        )
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"adaptor kind {kind!r}: {error}") from error
    if not issubclass(found, ModelMixin) or not hasattr(found, "inputs"):
        raise ValueError(f"adaptor kind {kind!r} is no ModelMixin with `inputs`")
    return found


def is_learned(kind: str) -> bool:
    """Tell whether adaptors of a kind have weights to learn; one's own always do."""
    learned = (_LearnedAdaptor, LinearAdaptor)
    return ":" in kind or (kind in KINDS and issubclass(KINDS[kind], learned))


def is_fitted(kind: str) -> bool:
    """Tell whether a kind's weights are fitted in closed form, by a ``fit``."""
    return callable(getattr(class_of(kind), "fit", None))


def load_adaptor(
    source: str | PathLike[str], revision: str | None = None, *, trust: bool = False
) -> Any:
    """Load an adaptor saved by ``save_pretrained``, from a folder or from the hub.

    Whatever precision it was saved in, it is float32 on the CPU: the pipeline that it
    is put on decides.

    Args:
        source: A folder, or the id of a repository on the hub (``owner/name``).
        revision: Which revision of that repository.
        trust: Whether to import what the folder names, if it holds an adaptor of
            another class than those here, ``my_package.my_module:MyAdaptor``.

    Raises:
        ValueError: If there is no such folder and no such repository, it holds no
            adaptor, or its weights are damaged, incomplete or not finite.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     IdentityAdaptor(cut="stage2").save_pretrained(folder)
    ...     adaptor = load_adaptor(folder)
    >>> adaptor.config.cut
    'stage2'
    """
    folder = _folder(source, revision)
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{source} holds no adaptor: {error}") from error
    kinds = {kind.__name__: kind for kind in KINDS.values()}
    name, own = config.get("_class_name"), config.pop("kind", None)
    if isinstance(own, str) and ":" in own:
        if not trust:
            raise ValueError(
                f"{source} holds an adaptor of {own!r}, which would be imported; "
                "trust=True does"
            )
        kinds[name] = class_of(own)
    if name not in kinds:
        raise ValueError(f"{source} holds {name!r}, not one of {', '.join(kinds)}")
    adaptor = kinds[name].from_config(config).eval()
    if own is not None:
        adaptor.register_to_config(kind=own)
    if any(True for _ in adaptor.parameters()):
        # diffusers writes no file of weights where there is none.
        _load_weights(adaptor, folder / SAFETENSORS_WEIGHTS_NAME)
    return adaptor


_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def _folder(source: str | PathLike[str], revision: str | None) -> Path:
    """Return the folder of an adaptor, downloaded if it is not there."""
    folder = Path(source)
    if folder.is_dir():
        return folder
    if not isinstance(source, str) or not _HUB_ID.fullmatch(source):
        raise ValueError(
            f"there is no folder {str(source)!r}, and it is no hub id either "
            "(owner/name)"
        )
    try:
        return Path(
            snapshot_download(
                source,
                revision=revision,
                allow_patterns=["config.json", SAFETENSORS_WEIGHTS_NAME],
            )
        )
    except Exception as error:  # many kinds: offline, unknown, forbidden
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"there is no folder {source!r}, and the hub does not give it: {reason}"
        ) from error


def _load_weights(adaptor: nn.Module, path: Path) -> None:
    """Fill an adaptor from a file that has exactly its tensors, all of them finite."""
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} is corrupt or truncated: {error}") from error
    for name, value in weights.items():
        if not torch.isfinite(value).all():
            raise ValueError(f"{path}: {name} is not finite")
    try:
        adaptor.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise ValueError(f"{path} is not of this adaptor: {error}") from error
