"""Time UNets of Stable Diffusion's size, and say what the paper's GPUs took."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clockwork_experiments.base import storage
from clockwork_experiments.config.parse import parse

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

GPUS = {
    "rtx3080": "RTX 3080",
    "rtx2080ti": "RTX 2080 Ti",
    "v100": "V100",
    "a100": "A100",
}
"""The paper's GPUs."""


@dataclass(frozen=True)
class UNetRun:
    """A run to time.

    Attributes:
        backbone: A key of `clockwork_experiments.cost.architectures.BACKBONES`.
        label: What the reader sees.
        sampler: A `clockwork_experiments.generate.text.SamplerSpec`, as plain data.
        adaptor: A key of `clockwork_diffusion.adaptors.KINDS`, or empty.
        cut: Where the UNet is split.
        baseline: Id of the run that its saving refers to, or empty.
        published: Printed milliseconds by GPU.
    """

    backbone: str
    label: str
    sampler: dict[str, object]
    adaptor: str = ""
    cut: str = "stage1"
    baseline: str = ""
    published: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class UNetTimingSpec:
    """What to time, and how often.

    Attributes:
        runs: Runs by id; those of one backbone take turns.
        repeats: Timed runs of each.
        modes: Keys of `clockwork_experiments.cost.latency.MODES`, the cheap ones first.
        tokens: Length of a prompt.
        text_channels: Width of the pooled text embedding.
        dtype: Precision, ``float16`` or ``float32``.
        last_start_s: No backbone is begun in a mode after so many seconds.
        base: Entries of the UNet's configuration other than SD v1.5's.
    """

    runs: dict[str, UNetRun]
    repeats: int = 10
    modes: tuple[str, ...] = ("eager", "graph", "compile")
    tokens: int = 77
    text_channels: int = 1024
    dtype: str = "float16"
    last_start_s: float = 360.0
    base: dict[str, object] = field(default_factory=dict)


def row_id(mode: str, run_id: str) -> str:
    """Return the name of a row."""
    return f"{mode}/{run_id}"


def is_complete(spec: UNetTimingSpec, rows: Mapping[str, Any]) -> bool:
    """Tell whether every run is timed in every mode."""
    return all(
        "mean_ms" in rows.get(row_id(mode, name), {})
        for mode in spec.modes
        for name in spec.runs
    )


def known_rows(state: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the times of a run that was cut off, if it measured the same."""
    if not state.is_file():
        return {}
    found = storage.read_json(state)
    asked = json.loads(json.dumps(facts))
    if found.get("complete") or any(found.get(key) != asked[key] for key in asked):
        return {}
    rows = {key: row for key, row in found["rows"].items() if "mean_ms" in row}
    log.info("going on after %d rows", len(rows))
    return rows


def time_rows(
    spec: UNetTimingSpec,
    device: torch.device,
    rows: dict[str, Any],
    write: Callable[[], None],
    elapsed: Callable[[], float],
) -> None:
    """Time the runs of one backbone in turns, backbone by backbone, mode by mode.

    A failure costs its own rows and no others.

    Args:
        spec: What to time.
        device: Where.
        rows: Rows that are there already; new ones are added.
        write: Called after each addition.
        elapsed: Tells how many seconds have passed.
    """
    groups: dict[str, dict[str, UNetRun]] = {}
    for name, timed in spec.runs.items():
        groups.setdefault(timed.backbone, {})[name] = timed
    unets: dict[str, Any] = {}
    for mode in spec.modes:
        for backbone, runs in groups.items():
            names = {row_id(mode, name): name for name in runs}
            if all("mean_ms" in rows.get(key, {}) for key in names):
                continue
            log.info("%s, %s, after %.0f s", backbone, mode, elapsed())
            try:
                if elapsed() > spec.last_start_s:
                    raise TimeoutError(f"not begun after {spec.last_start_s:.0f} s")
                timed_rows = time_backbone(spec, mode, backbone, runs, unets, device)
            # Whatever a compiler or a driver may raise, the other rows are worth it.
            except Exception as error:
                log.warning("%s, %s: %s", backbone, mode, error, exc_info=True)
                why = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                timed_rows = {name: {"error": why} for name in runs}
            for key, name in names.items():
                rows[key] = {"mode": mode, "run": name, **timed_rows[name]}
            write()


def time_backbone(
    spec: UNetTimingSpec,
    mode: str,
    backbone: str,
    runs: Mapping[str, UNetRun],
    unets: dict[str, Any],
    device: torch.device,
) -> dict[str, dict[str, Any]]:
    """Time the runs of one backbone in one mode.

    Args:
        spec: What to time.
        mode: A key of `clockwork_experiments.cost.latency.MODES`.
        backbone: The backbone of all the runs.
        runs: The runs by id.
        unets: UNets that are built, by backbone; kept for the other modes.
        device: Where.

    Raises:
        ValueError: If the runs differ in their adaptors.
    """
    import torch

    from clockwork_diffusion import adaptors
    from clockwork_diffusion.passes import Passes
    from clockwork_diffusion.unet import SplitUNet
    from clockwork_experiments.cost import architectures, latency
    from clockwork_experiments.generate.text import SamplerSpec

    chosen = {(timed.adaptor, timed.cut) for timed in runs.values() if timed.adaptor}
    if len(chosen) > 1:
        raise ValueError(f"runs of {backbone!r} have several adaptors: {chosen}")
    kind, cut = chosen.pop() if chosen else ("", "stage1")
    # Passes of other shapes must not lead to code for shapes in general.
    torch.compiler.reset()
    torch.manual_seed(0)
    if backbone not in unets:
        base = {**architectures.SD_V15, **spec.base}
        unet = architectures.build_unet(backbone, base, device)
        unets[backbone] = unet.to(getattr(torch, spec.dtype)).requires_grad_(False)
    unet, adaptor = unets[backbone], None
    if kind:
        adaptor = adaptors.build_adaptor(kind, unet, cut, spec.text_channels)
        adaptor = adaptor.to(device, unet.dtype).eval().requires_grad_(False)
    split, sizes = SplitUNet(unet, cut), (spec.tokens, spec.text_channels)
    samplers = {
        name: parse(SamplerSpec, timed.sampler, f"spec.runs.{name}.sampler")
        for name, timed in runs.items()
    }
    # What the mode yields is compared with what plain PyTorch does.
    eager = Passes(split, adaptor)
    expected = {
        name: latency.unet_loop(eager, sampler, *sizes)()
        for name, sampler in samplers.items()
    }
    # All runs share their passes, so that each kind of pass is compiled once.
    passes = Passes(split, adaptor, compiled=mode == "compile")
    loops = {
        name: latency.unet_loop(passes, sampler, *sizes)
        for name, sampler in samplers.items()
    }
    if mode == "graph":
        loops = {name: latency.captured(loop) for name, loop in loops.items()}
    timings = latency.time_in_turns(loops, spec.repeats, warm_up=3)
    return {
        name: {
            "backbone": backbone,
            "batch": samplers[name].branches,
            **dataclasses.asdict(timings[name]),
            "difference": latency.relative_difference(loop(), expected[name]),
        }
        for name, loop in loops.items()
    }


def to_markdown(result: Mapping[str, Any]) -> str:
    """Return the times as a table for people, the paper's beside them."""
    from clockwork_experiments.cost.latency import MODES, markdown_table

    spec, rows = result["spec"], result["rows"]
    gpus = dict.fromkeys(
        gpu for run in spec["runs"].values() for gpu in run["published"]
    )
    header = ["random weights"]
    header += [f"{MODES[mode]}, ms" for mode in spec["modes"]]
    header += [f"{GPUS.get(gpu, gpu)}, ms (published)" for gpu in gpus]
    lines = []
    for name, timed in spec["runs"].items():
        base = timed["baseline"]
        line = [timed["label"]]
        for mode in spec["modes"]:
            own, other = (rows.get(row_id(mode, each), {}) for each in (name, base))
            line.append(show(own.get("mean_ms"), other.get("mean_ms")))
        printed = spec["runs"].get(base, {}).get("published", {})
        line += [
            show(timed["published"].get(gpu), printed.get(gpu), digits=0)
            for gpu in gpus
        ]
        lines.append(line)
    failed = [f"{key}: {row['error']}" for key, row in rows.items() if "error" in row]
    differences = [row["difference"] for row in rows.values() if "mean_ms" in row]
    finite = [value for value in differences if value is not None]
    notes = [
        "Milliseconds for the UNet passes of one image; in brackets what Clockwork "
        f"saves. Mean of {spec['repeats']} runs after warm-up, runs of one backbone in "
        f"turns; {spec['dtype']}, {spec['tokens']} tokens; two samples per pass with "
        "guidance, one without. UNets and adaptors have random weights, which time "
        "does not depend on: there are no images.",
        f"{result['device']}, CUDA {result['cuda']}, "
        + ", ".join(f"{k} {v}" for k, v in result["versions"].items())
        + ". The published columns are Table S3 as printed.",
    ]
    if finite and len(finite) == len(differences):
        notes.append(
            f"Outputs are eager ones to within {max(finite):.1e} of their norm."
        )
    elif differences:
        notes.append("Some outputs are not finite, and are not compared.")
    if failed:
        notes.append("Not timed: " + "; ".join(failed) + ".")
    title = f"**Table S3 on {result['device']}, random weights**"
    return "\n\n".join([title, markdown_table(header, lines).rstrip(), *notes]) + "\n"


def show(value: float | None, base: float | None, digits: int = 1) -> str:
    """Return milliseconds, and what they are less than a baseline's."""
    from clockwork_experiments.cost.latency import percent

    if value is None:
        return "—"
    text = f"{value:.{digits}f}"
    return text if base is None else f"{text} ({percent(value / base - 1)})"
