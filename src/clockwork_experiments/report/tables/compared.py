"""A run beside its teacher: the metrics of Table 1, and what differs, in pairs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from clockwork_experiments.config.needs.entries import SMALL
from clockwork_experiments.report.kinds import Known, Needs
from clockwork_experiments.report.tables.results import (
    COLUMNS,
    Measure,
    Row,
    TableSpec,
    cell,
)
from clockwork_experiments.report.tables.table import Cell, Results, Table, Value

METRICS: dict[str, tuple[str, ...]] = {
    "mini": (
        *("frechet", "kernel", "caption_error", "clip", "as_captioned", "agreement"),
        *("psnr_to_teacher", "gflops", "gflops_kept", "saving"),
        "gflops_with_attention",
        *("latency", "latency_saving", "n"),
    ),
    "paper": (
        *("frechet", "clip", "psnr_to_teacher", "tflops", "tflops_kept", "saving"),
        *("tflops_with_attention", "latency", "latency_saving", "n"),
    ),
}
"""The columns by scale: Table 1's own of mini scale, FLOPs in the scale's unit."""

_SCENES = (
    "our 64×64 scene models, and our own networks behind both scores, which are not "
    "comparable with FID and CLIP of the papers."
)
SAID = {
    "mini": f"Mini scale: {_SCENES}",
    "study": f"The study: {_SCENES}",
    "paper": "Paper scale: FID by Inception, CLIP score by ViT-g/14.",
    "pilot": "Paper scale, of few captions: FID by Inception, CLIP score by ViT-g/14.",
    "random": "Random weights of the real sizes: no score says anything.",
}
"""What the caption says of each scale."""

PAIRED = ("frechet", "kernel", "caption_error", "clip", "as_captioned", "agreement")
"""Scores whose difference `score_images` measures, with an interval of its own."""


def comparison(known: Known, scale: str, name: str) -> dict[str, Any]:
    """Return the settings of a table of a run and its teacher.

    Raises:
        ValueError: If there is no such run, or it has no teacher.
    """
    run = known.entry("runs", name)
    teacher = run.get("teacher")
    if not teacher:
        raise ValueError(f"{scale}: run {name!r} has no teacher to be compared with")
    chosen = known.entry("datasets", run["dataset"])
    both = (run, known.entry("runs", teacher))
    columns = METRICS["mini" if scale in SMALL else "paper"]
    timed = " UNet ms: means of both in turns, on the machine that made the table."
    if any("level" in each for each in both):
        columns = tuple(each for each in columns if not each.startswith("latency"))
        timed = ""
    seeds = chosen.get("seeds", 1)
    caption = (
        f"{SAID[scale]} {chosen['count']:,} captions of {run['dataset']!r}, "
        f"{seeds} image{'s' if seeds > 1 else ''} of each, from the same noise in both "
        "runs. In brackets 95 %; those of a difference are of pairs. PSNR: to the "
        "baseline's image. FLOPs: all UNet passes of one image, guidance included; "
        f"saved: relative to the baseline.{timed}"
    )
    rows = [
        {"label": teacher, "run": teacher},
        {"label": name, "run": name, "baseline": teacher},
    ]
    title = f"{name} beside {teacher}"
    return {"title": title, "caption": caption, "columns": columns, "rows": rows}


@dataclass(frozen=True)
class ComparedSpec(TableSpec):
    """A baseline, a run, and by how much the run differs."""

    kind: ClassVar[str] = "compared"

    def __post_init__(self) -> None:
        """Reject all but a run and its baseline."""
        super().__post_init__()
        pair = [row.run for row in self.rows]
        if len(pair) != 2 or self.rows[1].baseline != pair[0]:
            raise ValueError(f"rows are {', '.join(pair)}, not a baseline and its run")

    def needs(self, known: Known) -> Needs:
        """Return the scores and counts of both, and timings of this pair alone."""
        files = super().needs(known)
        if "latency" in files:
            files["latency"] = [f"{known.base}/latency/pairs/{self.rows[1].run}.json"]
        return files

    def table(self, results: Results) -> Table:
        """Return the table."""
        whole = super().table(results)
        teacher, run = whole.rows
        difference = {
            name: _difference(name, teacher.get(name), run.get(name), self, results)
            for name in self.columns
        }
        named = dict.fromkeys(("row", "label"), "difference")
        last = {**named, "run": run["run"], "ours": False, **difference}
        return replace(whole, rows=[*whole.rows, last])


def _difference(
    name: str, teacher: Cell, run: Cell, spec: TableSpec, results: Results
) -> Cell:
    column = COLUMNS[name]
    if column.kind == "score":
        if name not in PAIRED:
            return None
        paired = _paired(column, spec.rows[1], results)
        return replace(paired, signed=True) if isinstance(paired, Value) else paired
    if column.kind == "n" or column.kind.endswith("saving"):
        return None
    if not isinstance(teacher, float | int) or not isinstance(run, float | int):
        return None
    return Value(run - teacher, signed=True)


def _paired(column: Measure, row: Row, results: Results) -> Cell:
    """Return what a run's scores say of the difference from its teacher."""
    return cell(replace(column, key=f"{column.key}_minus_teacher"), row, results)
