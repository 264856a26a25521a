"""What the clock itself costs beside the UNet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

WARM_UP = 4
"""Untimed rounds, first; compiled passes are compiled in them."""

BAR = 0.01
"""The most that a step through the door may cost above its modules."""


@dataclass(frozen=True)
class Case:
    """A UNet and a batch.

    Attributes:
        batch: Samples per pass.
        pairs: Pairs of timed calls.
        channels: Channels of a random UNet with SD v1.5's topology; of the shipped
            model if empty.
        size: Its height and width of latents.
        compiled: Whether both sides are compiled, each pass as one graph.
    """

    batch: int
    pairs: int
    channels: tuple[int, ...] = ()
    size: int = 0
    compiled: bool = False


@dataclass(frozen=True)
class OverheadSpec:
    """What to measure.

    Attributes:
        model: Folder of the pipeline whose UNet is measured.
        tokens: Length of its prompts.
        text_channels: Width of the pooled text embedding.
        adaptor: A learned key of `clockwork_diffusion.adaptors.KINDS`; its weights are
            random, which time does not depend on.
        cases: The cases.
    """

    model: str
    tokens: int
    text_channels: int
    adaptor: str
    cases: tuple[Case, ...]


def to_markdown(result: Mapping[str, Any]) -> str:
    """Return the measurements as a table for people."""
    from clockwork_experiments.cost.latency import markdown_table, percent

    rows, bar = [], result["bar"]
    for kind in ("adaptor", "full"):
        for case in result["cases"]:
            step = case["steps"][kind]
            channels = "-".join(map(str, case["channels"]))
            rows.append(
                [
                    f"{kind} step, {channels} at {case['size']}×{case['size']}, "
                    f"{case['mode']}",
                    str(case["batch"]),
                    f"{step['bare_ms']:.2f}",
                    f"{percent(step['overhead'])} "
                    f"[{percent(step['low'])}, {percent(step['high'])}]",
                    percent(step["control"]),
                    f"≤ {100 * bar:g} %",
                    "yes" if step["overhead"] <= bar else "no",
                ]
            )
    header = ["", "batch", "bare ms", "overhead", "bare against itself", "bar", "met"]
    pairs = sorted(case["steps"]["full"]["pairs"] for case in result["cases"])
    count = " to ".join(map(str, dict.fromkeys((pairs[0], pairs[-1]))))
    versions = ", ".join(f"{k} {v}" for k, v in result["versions"].items())
    return (
        "**What a pass through the library's door costs above its modules**\n\n"
        f"{markdown_table(header, rows)}\n"
        f"Median of paired ratios ({count} pairs in random order, one process) with "
        "its 95 % bootstrap interval. The UNet is called as pipelines call it, with "
        "Clockwork applied, in one run at clock 2: an adaptor step (ε_H + φ) against "
        "its modules, called one by one; a full step against the forward of diffusers' "
        f"UNet. Adaptor: {result['adaptor']}. "
        f"{result['device']}; {versions}.\n"
    )
