"""Tables of the benchmark: all methods, plans against single axes, every mask."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from clockwork_experiments.benchmark.comparison import (
    Interval,
    Row,
    best_single,
    front,
    joint,
    row_with,
    rows_of,
    sentences,
    share,
    told,
)
from clockwork_experiments.report.kinds import Given, Known, Needs
from clockwork_experiments.report.tables.table import (
    Cells,
    Column,
    Spec,
    Table,
    Value,
)

ENOUGH = 1.0
"""dB by which a joint plan is to be better than the best single axis."""


@dataclass(frozen=True)
class ShownMethod:
    """An entry of the benchmark.

    Attributes:
        method: Its id.
        label: What it is called; entries of one label are training seeds of it.
        than: The entry from which the difference is told.
    """

    method: str
    label: str
    than: str = ""


@dataclass(frozen=True)
class Compared(Spec):
    """Methods of one task.

    Attributes:
        task: The task.
        methods: The methods.
        plain: The method that costs refer to.
        budgets: Shares of its FLOPs at which the best are named.
        timed: Whether timings are shown.
    """

    task: str
    methods: tuple[ShownMethod, ...]
    plain: str
    budgets: tuple[float, ...]
    timed: bool = True

    def needs(self, known: Known) -> Needs:
        """Return the measurements and timings of all methods."""
        folder = f"{known.base}/benchmark/{self.task}"
        named = [each.method for each in self.methods]
        files = {"methods": [f"{folder}/methods/{name}.json" for name in named]}
        if self.timed:
            files["times"] = [f"{folder}/times/{name}.json" for name in named]
        return files

    def rows(self, given: Given) -> list[Row]:
        """Return the methods as they were measured."""
        listed = [(each.method, each.label, each.than) for each in self.methods]
        return rows_of(listed, given.each("methods"), given.each("times"))


@dataclass(frozen=True)
class BenchmarkSpec(Compared):
    """Every method: FLOPs both ways, time, distance, as captioned; who wins where."""

    kind: ClassVar[str] = "benchmark"

    def make(self, given: Given) -> Table:
        """Return the table, the cheapest first; sentences below it."""
        rows = self.rows(given)
        plain = row_with(rows, self.plain)
        best = front(rows)
        ordered = sorted(rows, key=lambda each: each.flops_with_attention)
        cells = [_cells(row, plain, row in best) for row in ordered]
        said = sentences(rows, plain, self.budgets)
        brief = tuple(
            key for key in BRIEF if any(each[key] is not None for each in cells)
        )
        table = Table(self.title, self.caption, COLUMNS, cells, said, brief=brief)
        return self.chosen(table)


BRIEF = (
    *("label", "front", "share", "share_with_attention", "time"),
    *("psnr_to_reference", "frechet", "as_captioned"),
)
"""What Markdown shows, as far as it was measured."""

COLUMNS = {
    "run": Column(None, names=True),
    "label": Column("method", names=True),
    "front": Column("front"),
    "gflops": Column("GFLOPs", 2),
    "share": Column("FLOPs, %", 1, factor=100),
    "gflops_with_attention": Column("GFLOPs with attention", 2),
    "share_with_attention": Column("with attention, %", 1, factor=100),
    "time": Column("time, %", 1, factor=100),
    "psnr_to_reference": Column("PSNR to many steps, dB ↑", 2),
    "frechet": Column("Fréchet to many steps ↓", 3),
    "as_captioned": Column("as captioned, % ↑", 1, factor=100),
    "spread": Column("seeds apart, dB", 2),
    "training_seeds": Column("training seeds"),
    "n": Column("images"),
}


def _cells(row: Row, plain: Row, best: bool) -> Cells:
    quality = row.values["psnr_to_reference"]
    return {
        "run": row.methods[0],
        "label": row.label,
        "front": "●" if best else "",
        "gflops": row.flops / 1e9,
        "share": row.flops / plain.flops,
        "gflops_with_attention": row.flops_with_attention / 1e9,
        "share_with_attention": share(row, plain),
        "time": _value(row.ratio),
        "psnr_to_reference": _value(row.mean()),
        "frechet": row.frechet,
        "as_captioned": _value(row.mean("as_captioned")),
        "spread": (
            max(row.of_seeds) - min(row.of_seeds) if len(row.of_seeds) > 1 else None
        ),
        "training_seeds": len(row.of_seeds) if row.trained else None,
        "n": len(quality),
    }


def _value(found: Interval | None, signed: bool = False) -> Value | None:
    if found is None:
        return None
    return Value(found.value, found.low, found.high, signed)


@dataclass(frozen=True)
class PlansSpec(Compared):
    """Joint plans against the best method that changes one thing, by budget."""

    kind: ClassVar[str] = "benchmark_plans"

    def needs(self, known: Known) -> Needs:
        """Return the measurements."""
        return {"methods": super().needs(known)["methods"]}

    def make(self, given: Given) -> Table:
        """Return the table."""
        rows = self.rows(given)
        plain = row_with(rows, self.plain)
        cells: list[Cells] = []
        better = 0
        plans = [row for row in rows if joint(row)]
        for plan in plans:
            allowed = share(plan, plain)
            known = [each for each in self.budgets if each >= allowed - 1e-3]
            other = best_single(rows, plain, min(known, default=allowed))
            gap = plan.minus(other) if other is not None else None
            if gap is not None and gap.value >= ENOUGH:
                assert other is not None
                better += told(plan, other, gap)
            cells.append(
                {
                    "run": plan.methods[0],
                    "label": plan.label,
                    "share": allowed,
                    "plan": _value(plan.mean()),
                    "single": None if other is None else other.label,
                    "single_share": None if other is None else share(other, plain),
                    "best": _value(None if other is None else other.mean()),
                    "difference": _value(gap, signed=True),
                }
            )
        note = (
            f"{better} of {len(plans)} plans are better than the best single axis by "
            f"{ENOUGH:.0f} dB or more, with an interval clear of 0. The best single "
            "axis is the best on these very images, of plain steps at any time steps, "
            "of masks and clocks with any predictor, of masks and time steps that were "
            "planned as the plans were, of depth-skip, of T-GATE and of ToMe."
        )
        return self.chosen(
            Table(self.title, self.caption, PLAN_COLUMNS, cells, (note,))
        )


PLAN_COLUMNS = {
    "run": Column(None, names=True),
    "label": Column("plan", names=True),
    "share": Column("FLOPs with attention, %", 1, factor=100),
    "plan": Column("PSNR to many steps, dB ↑", 2),
    "single": Column("best single axis"),
    "single_share": Column("its FLOPs, %", 1, factor=100),
    "best": Column("its PSNR, dB ↑", 2),
    "difference": Column("difference, dB", 2, signed=True),
}


@dataclass(frozen=True)
class MasksSpec(Spec):
    """The best mask at each budget, and the masks that sums choose instead.

    Attributes:
        task: The task.
        predictors: The predictors.
        steps: The number of steps.
    """

    kind: ClassVar[str] = "benchmark_masks"
    task: str
    predictors: tuple[str, ...] = field(default=())
    steps: int = 8

    def needs(self, known: Known) -> Needs:
        """Return every predictor's masks."""
        folder = f"{known.base}/benchmark/{self.task}/masks"
        return {"masks": [f"{folder}/{name}.json" for name in self.predictors]}

    def make(self, given: Given) -> Table:
        """Return the table."""
        found = given.each("masks")
        cells: list[Cells] = []
        notes = []
        for name in self.predictors:
            one = found[name]
            by = one["sums"]
            pairs = zip(by["steps"]["best"], by["spans"]["best"], strict=True)
            for by_steps, by_spans in pairs:
                cells.append(
                    {
                        "run": f"{name}_{by_steps['full']}",
                        "label": name,
                        "full": by_steps["full"],
                        "best": by_steps["best"],
                        "error": -10 * math.log10(by_steps["least"]),
                        "of_steps": by_steps["chosen"],
                        "gap_of_steps": by_steps["gap"],
                        "of_spans": by_spans["chosen"],
                        "gap_of_spans": by_spans["gap"],
                    }
                )
            notes.append(_predicted(name, one))
        return self.chosen(
            Table(self.title, self.caption, MASK_COLUMNS, cells, tuple(notes))
        )


MASK_COLUMNS = {
    "run": Column(None, names=True),
    "label": Column("predictor", names=True),
    "full": Column("full steps"),
    "best": Column("best mask, measured"),
    "error": Column("its latents, dB", 1),
    "of_steps": Column("by sums of steps"),
    "gap_of_steps": Column("gap, %", 1, factor=100),
    "of_spans": Column("by sums of spans"),
    "gap_of_spans": Column("gap of spans, %", 1, factor=100),
}


def _predicted(name: str, one: Mapping[str, Any]) -> str:
    """Return how well sums predict what a predictor's masks cost, in a sentence."""
    parts = []
    for by, found in one["sums"].items():
        line = found["prediction"]
        worst = max(each["gap"] for each in found["best"])
        mean = sum(each["gap"] for each in found["best"]) / len(found["best"])
        parts.append(
            f"sums of single {by} have an R² of {line['r2']:.3f} and a slope of "
            f"{line['slope']:.2f}, and the masks that they choose cost "
            f"{100 * mean:.1f} % more than the best, {100 * worst:.1f} % at worst"
        )
    return f"{name}, {one['captions']} captions: {'; '.join(parts)}."
