"""Count UNets other than Stable Diffusion's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Run:
    """How an image is sampled; a row per clock.

    Attributes:
        label: What the reader sees of the model.
        unet: A key of `UNETS`.
        steps: Sampling steps, each of one call.
        rows: UNet samples per image and step: 2 with guidance.
        tokens: Length of a prompt.
        clocks: Clocks beside 1.
        cuts: Cuts at which the UNet is split.
        adaptors: Kinds of adaptor.
    """

    label: str
    unet: str
    steps: int
    rows: int
    tokens: int
    clocks: tuple[int, ...]
    cuts: tuple[str, ...]
    adaptors: tuple[str, ...]


@dataclass(frozen=True)
class OtherUNetsSpec:
    """The table.

    Attributes:
        title: Its heading.
        caption: What the reader must know, in full sentences.
        runs: What is counted.
    """

    title: str
    caption: str
    runs: tuple[Run, ...]


UNETS = {"sd": "SD_V15", "sdxl": "SDXL_BASE", "lcm": "LCM_SD"}
"""Architectures, by the constants of `clockwork_experiments.cost.architectures`."""

KEYS = {"": "flops", "_with_attention": "flops_with_attention"}
"""Conventions of counting, by what their columns' names end in."""

PASTED = ("label", "steps", "parameters", "gflops_light", "tflops", "saved")

BRIEF = (*PASTED, "tflops_kept", "saved_kept")
"""Columns that LaTeX and Markdown show."""


def rows_of(chosen: Run) -> list[dict[str, Any]]:
    """Count a model whole, and with each adaptor at each cut and clock.

    Raises:
        ValueError: If the UNet is not one of those known.
    """
    import torch
    from diffusers import UNet2DConditionModel

    from clockwork_diffusion.adaptors import build_adaptor
    from clockwork_diffusion.clock import Clock
    from clockwork_diffusion.contract import INPUTS
    from clockwork_experiments.cost import architectures, flops

    if chosen.unet not in UNETS:
        raise ValueError(f"unet {chosen.unet!r} is not one of {', '.join(UNETS)}")
    config = getattr(architectures, UNETS[chosen.unet])
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(
            {**architectures.SD_TOPOLOGY, **config}
        ).eval()
    full = flops.count_full(unet, chosen.tokens).to_json()
    whole = {"label": chosen.label, "steps": chosen.steps}
    whole["parameters"] = full["parameters"] / 1e6
    for suffix, key in KEYS.items():
        whole[f"tflops{suffix}"] = chosen.steps * chosen.rows * full[key] / 1e12
    rows = [whole]
    for cut in chosen.cuts:
        for kind in chosen.adaptors:
            with torch.device("meta"):
                # Text changes nothing (Table S2), and is left out.
                inputs = INPUTS if kind == "identity" else ("r_in", "r_out")
                adaptor = build_adaptor(kind, unet, cut, 1, inputs=inputs)
            counts = flops.count_light(unet, chosen.tokens, adaptor, 1)
            own = sum(parameter.numel() for parameter in adaptor.parameters())
            for clock in chosen.clocks:
                fulls = Clock(clock).full_steps(chosen.steps)
                row = _row(chosen, whole, fulls, full, counts)
                row["label"] = f"+ {kind}, {cut}, clock {clock}"
                row["parameters"] = (full["parameters"] + own) / 1e6
                rows.append(row)
    return rows


def _row(
    chosen: Run,
    whole: dict[str, Any],
    fulls: int,
    full: dict[str, int],
    counts: dict[str, Any],
) -> dict[str, Any]:
    """Return what an image costs at a clock, in both ways and both conventions."""

    def tflops(step: str, key: str) -> float:
        light = counts[step].to_json()[key]
        passes = fulls * full[key] + (chosen.steps - fulls) * light
        return float(chosen.rows * passes / 1e12)

    row: dict[str, Any] = {"steps": chosen.steps}
    row["gflops_light"] = counts["step"].flops / 1e9
    for suffix, key in KEYS.items():
        row[f"tflops{suffix}"] = tflops("step", key)
        saved = 1 - row[f"tflops{suffix}"] / whole[f"tflops{suffix}"]
        row[f"saved{suffix}"] = 100 * saved
    if "step_after_upsampler" in counts:
        row["tflops_kept"] = tflops("step_after_upsampler", "flops")
        row["saved_kept"] = 100 * (1 - row["tflops_kept"] / whole["tflops"])
    return row
