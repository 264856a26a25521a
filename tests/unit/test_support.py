"""What each method does in each kind of pipeline, bit for bit; docs/support.md says it.

The references know nothing of our code: plain hooks on diffusers' own modules. After a
change, ``python tests/unit/test_support.py`` writes the page anew.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from clockwork_diffusion.adaptors import build_adaptor
from clockwork_diffusion.branches import deepcache
from clockwork_diffusion.depth_skip import depth_skipped
from clockwork_diffusion.pipeline import clockwork
from clockwork_diffusion.plug_and_play.pipeline import edit_image

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
from pipelines import KINDS, PROMPT, SIZE, Kind  # noqa: E402
from test_other_unets import kandinsky, motion, unconditional, video  # noqa: E402

PAGE = Path(__file__).parents[2] / "docs" / "support.md"


@contextmanager
def hooks(*handles: Any) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def reused_after_upsampling(pipe: Any, clock: int = 2) -> AbstractContextManager[None]:
    """Give what the last full step's upsampler made, on all steps but each second."""
    kept: dict[str, Any] = {"call": -1}

    def count(*_: Any) -> None:
        kept["call"] += 1

    def reuse(_module: Any, _given: Any, output: torch.Tensor) -> torch.Tensor:
        if kept["call"] % clock == 0:
            kept["features"] = output
        return kept["features"]

    upsampler = pipe.unet.up_blocks[-2].upsamplers[0]
    return hooks(
        pipe.unet.conv_in.register_forward_hook(count),
        upsampler.register_forward_hook(reuse),
    )


def zeros_from_below(pipe: Any, level: int) -> AbstractContextManager[None]:
    """Lose what the layers below a level send up."""
    unet = pipe.unet
    layers = [resnet for block in unet.up_blocks for resnet in block.resnets]
    encoders = [unet.conv_in]
    for block in unet.down_blocks:
        encoders += [*block.resnets, *(block.downsamplers or ())]
    skip = encoders[level - 1].out_channels

    def lose(_module: Any, given: tuple) -> tuple:
        hidden, *rest = given
        below = hidden.shape[1] - skip
        return torch.cat([0 * hidden[:, :below], hidden[:, below:]], dim=1), *rest

    return hooks(layers[-level].register_forward_pre_hook(lose))


def learned(pipe: Any) -> AbstractContextManager[None]:
    """Put an untrained adaptor in: it hands on r_out, as the identity does."""
    adaptor = build_adaptor(
        "resnet", pipe.unet, "stage1", 8, inputs=("r_in", "r_out")
    ).eval()
    return clockwork(pipe, 2, adaptor=adaptor)


METHODS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any] | None]] = {
    "clock 1": (lambda pipe: clockwork(pipe, 1), None),
    "clock 2": (lambda pipe: clockwork(pipe, 2), reused_after_upsampling),
    "learned adaptor": (learned, reused_after_upsampling),
    "DeepCache's branch 2": (
        lambda pipe: deepcache(pipe, clock=2, branch=2),
        reused_after_upsampling,
    ),
    "depth-skip": (
        lambda pipe: depth_skipped(pipe, 5),
        lambda pipe: zeros_from_below(pipe, 5),
    ),
}
"""Methods, and what they must equal; the plain pipeline if nothing is named."""


class Calls:
    """Counts a UNet's calls."""

    def __init__(self, unet: Any) -> None:
        self.count = 0
        unet.conv_in.register_forward_hook(self.note)

    def note(self, *_: Any) -> None:
        self.count += 1


def outcome(kind: Kind, method: str) -> str:
    """Return a cell of the matrix: `exact`, or why the method is refused."""
    put, reference = METHODS[method]
    pipe = kind.build()
    expected = plain = kind.call(pipe)
    calls = Calls(pipe.unet)
    try:
        with put(pipe):
            made = kind.call(pipe)
    except ValueError as error:
        assert not calls.count, "refused, but not before sampling"
        return f"refused: {error}"
    assert torch.equal(kind.call(pipe), plain), "the method has left something behind"
    if reference is not None:
        with reference(pipe):
            expected = kind.call(pipe)
        assert not torch.equal(expected, plain), "the method would change nothing"
    if torch.equal(made, expected):
        return "exact"
    largest = float((made - expected).abs().max())
    scale = float(expected.abs().max())
    if largest < 1e-4 * scale:
        return "to rounding"
    raise AssertionError(f"{kind.name}, {method}: off by {largest} of {scale}")


OTHERS = {
    "AnimateDiff": motion,
    "Stable Video Diffusion": video,
    "Kandinsky 2.2 (DeepFloyd IF has such blocks too)": kandinsky,
    "DDPM (unconditional)": unconditional,
}
"""UNets that cannot be split, by their pipelines."""


def refusal(build: Callable[[], Any], method: str) -> str:
    """Return why a method is refused of a UNet, as `outcome` does."""
    put, _ = METHODS[method]
    with torch.device("meta"):
        pipe = SimpleNamespace(unet=build())
    with pytest.raises(ValueError) as caught, put(pipe):
        pass
    return f"refused: {caught.value}"


def row_of(name: str) -> dict[str, str]:
    """Return a row of the matrix."""
    if name in OTHERS:
        return {method: refusal(OTHERS[name], method) for method in METHODS}
    kind = next(kind for kind in KINDS if kind.name == name)
    return {method: outcome(kind, method) for method in METHODS}


NAMES = (*(kind.name for kind in KINDS), *OTHERS)
"""The rows of the matrix."""


def page(rows: dict[str, dict[str, str]]) -> str:
    """Return the page: a table, and the reasons of what is refused below it."""
    reasons: list[str] = []
    lines = []
    for name, row in rows.items():
        shown = []
        for cell in row.values():
            if cell.startswith("refused: "):
                if cell not in reasons:
                    reasons.append(cell)
                cell = f"refused [{reasons.index(cell) + 1}]"
            shown.append(cell)
        lines.append(f"| {name} | {' | '.join(shown)} |")
    notes = [
        f"{number}. {reason.removeprefix('refused: ')}"
        for number, reason in enumerate(reasons, 1)
    ]
    return "\n".join(
        [
            "# What works in which pipeline",
            "",
            "Made by `tests/unit/test_support.py` with small random models of each",
            "kind. Exact: the latents equal, bit for bit, those of an independent",
            "reference (a plain hook on diffusers' own modules; of clock 1, the plain",
            "pipeline), and afterwards those of the plain pipeline again. To rounding:",
            "zeros go through other kernels than products with zero do. Refused: in",
            "one line, before anything is sampled.",
            "",
            "Plug-and-Play (`edit_image`) edits with text-to-image pipelines of SD 1.x",
            "and 2.x, and refuses others.",
            "",
            f"| pipeline | {' | '.join(METHODS)} |",
            f"|---|{'---|' * len(METHODS)}",
            *lines,
            "",
            *notes,
            "",
        ]
    )


@pytest.mark.parametrize("name", ["SDXL", "InstructPix2Pix", "LCM"])
def test_plug_and_play_refuses_what_it_cannot_edit(name):
    pipe = next(kind for kind in KINDS if kind.name == name).build()
    calls = Calls(pipe.unet)
    image = Image.new("RGB", (SIZE, SIZE))
    message = f"is for text-to-image pipelines of SD 1.x .* {type(pipe).__name__} is"
    with pytest.raises(ValueError, match=message):
        edit_image(pipe, image, PROMPT, ["a blue square"])
    assert not calls.count


@pytest.fixture(scope="module")
def documented() -> dict[str, dict[str, str]]:
    """Return the cells of the page."""
    text = PAGE.read_text("utf-8")
    lines = [line for line in text.splitlines() if line.startswith("| ")][1:]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {name: dict(zip(METHODS, row, strict=True)) for name, *row in table}


@pytest.mark.parametrize("name", NAMES)
def test_each_method_does_what_the_page_says(documented, name):
    assert tuple(documented) == NAMES
    for method, found in row_of(name).items():
        said = documented[name][method]
        if said.startswith("refused ["):
            reason = found.removeprefix("refused: ")
            assert found != reason and reason in PAGE.read_text("utf-8")
        else:
            assert found == said, method


if __name__ == "__main__":
    PAGE.write_text(page({name: row_of(name) for name in NAMES}), encoding="utf-8")
