"""What levels of depth-skip hold and cost, and what a level for each step gains.

Counts are those of `count_levels`, timings those of `time_levels`, schedules of levels
those of `search_depth`. Printed values stand beside ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from clockwork_experiments.cost.formulas import kept_share, typical_ms
from clockwork_experiments.report.kinds import Known, Needs
from clockwork_experiments.report.tables.table import (
    Cells,
    Column,
    Results,
    Spec,
    Table,
    Value,
)
from clockwork_experiments.score.names import SCORES
from clockwork_experiments.search.levels import DIRECTION, LIKENESS, PROBLEMS

UNITS = {"T": ("tmacs", 1e-12), "G": ("gmacs", 1e-9)}
"""Units of MACs: the column, and the factor."""

LEVEL_COLUMNS: dict[str, Column] = {
    "level": Column("level", names=True),
    "encoder": Column("encoder"),
    "decoder": Column("decoder"),
    "zero_channels": Column("zero ch."),
    "skip_channels": Column("skip ch."),
    "resolution": Column("latents"),
    "parameters": Column("parameters, M", 3),
    "share": Column("parameters, %", 2),
    "share_published": Column("parameters, % (published)", 2),
    "kept": Column("cumulative, %", 2),
    "kept_published": Column("cumulative, % (published)", 2),
    "gmacs": Column("GMACs to here", 3),
    "latency": Column("latency, %", 2),
    "latency_published": Column("latency, % (published)", 2),
    "latency_kept": Column("cumulative latency, %", 2),
    "latency_kept_published": Column("cumulative latency, % (published)", 2),
}

COST_COLUMNS: dict[str, Column] = {
    "label": Column("", names=True),
    "level": Column("level", names=True),
    "steps": Column("steps", names=True),
    "parameters": Column("parameters, M", 2),
    "kept": Column("kept, %", 2),
    "saved": Column("less, %", 1),
    "saved_published": Column("less, % (published)", 1),
    "gmacs": Column("GMACs", 3),
    "tmacs": Column("TMACs", 3),
    "tmacs_published": Column("TMACs (published)", 2),
    "seconds": Column("time, s", 3),
    "seconds_published": Column("time, s (published)", 3),
}


def _gain(header: str, digits: int = 2) -> Column:
    return Column(f"Δ{header}", digits, signed=True)


MULTI_COLUMNS: dict[str, Column] = {
    "problem": Column("problem", names=True),
    "row": Column("against", names=True),
    "levels": Column("levels, first steps first"),
    "time_published": _gain("time, % (published)"),
    "time": _gain("time, %"),
    "milliseconds": _gain("time, %, measured"),
    f"{LIKENESS}_published": _gain(f"{SCORES[LIKENESS].name} (published)"),
    LIKENESS: _gain(f"{SCORES[LIKENESS].name}, held out", SCORES[LIKENESS].digits),
    f"{DIRECTION}_published": _gain(f"{SCORES[DIRECTION].name} (published)"),
    DIRECTION: _gain(f"{SCORES[DIRECTION].name}, held out", SCORES[DIRECTION].digits),
    "parameters_published": _gain("parameters, % (published)"),
    "parameters": _gain("parameters, %"),
    "best_single": Column("best single level"),
    "time_beyond": _gain("time to that, %"),
}

_PRINTED = ("share", "kept", "latency_kept")
LEVELS_SHOWN = (
    "level",
    *(name for each in _PRINTED for name in (f"{each}_published", each)),
    "gmacs",
)
LEVELS_PASTED = ("level", *(f"{name}_published" for name in _PRINTED), *_PRINTED)
COSTS_SHOWN = (
    *("label", "level", "steps", "tmacs_published", "seconds_published"),
    *("gmacs", "tmacs", "seconds", "saved"),
)
"""Of a table only one of ``gmacs`` and ``tmacs`` is known."""
COSTS_PASTED = COSTS_SHOWN[:-1]
MULTI_SHOWN = (
    *("problem", "row"),
    *(
        name
        for each in ("time", LIKENESS, DIRECTION, "parameters")
        for name in (f"{each}_published", each)
    ),
)
"""Which columns of wide tables a reader sees at once, and which an author pastes."""


def level_name(level: int) -> str:
    """Return a level as the paper writes it: ``D09``."""
    return f"D{level:02}"


def _published(values: Mapping[str, float]) -> Cells:
    return {f"{name}_published": value for name, value in values.items()}


@dataclass(frozen=True)
class LevelsSpec(Spec):
    """A table of what levels of some models cost."""

    @property
    def translators(self) -> list[str]:
        """Return the models."""
        raise NotImplementedError

    def needs(self, known: Known) -> Needs:
        """Return the counts of levels, and their timings where they are waited for."""
        files = {"levels": [f"{known.base}/levels/{n}.json" for n in self.translators]}
        return {**files, **self._timings(known)} if known.measured else files

    def wishes(self, known: Known) -> Needs:
        """Return timings, which UNets of paper size have on request alone."""
        return {} if known.measured else self._timings(known)

    def _timings(self, known: Known) -> Needs:
        names = self.translators
        return {
            "level_latency": [f"{known.base}/latency/levels/{n}.json" for n in names]
        }


@dataclass(frozen=True)
class LevelTableSpec(LevelsSpec):
    """A table of a UNet's levels (Table S7).

    Attributes:
        translator: Id of the model.
        published: Printed values by column, level 1 first: ``share``, ``kept``,
            ``latency`` or ``latency_kept``.
    """

    kind: ClassVar[str] = "levels"

    translator: str
    published: dict[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def translators(self) -> list[str]:
        """Return the models."""
        return [self.translator]

    def table(self, results: Results) -> Table:
        """Return the table.

        Raises:
            ValueError: If the printed values are not as many as the levels.
        """
        counts = results.levels[self.translator]
        timings = results.level_latency.get(self.translator, {})
        levels = counts["levels"]
        for name, values in self.published.items():
            if len(values) != len(levels):
                raise ValueError(
                    f"{len(values)} values are published as {name!r}, "
                    f"and there are {len(levels)} levels"
                )
        whole = sum(entry["parameters"] for entry in levels)
        times: list[float] = [
            typical_ms(timings["levels"][str(entry["level"])])
            for entry in (levels if timings else ())
        ]
        shares = [100 * time / times[-1] for time in times]
        rows: list[Cells] = []
        for index, entry in enumerate(levels):
            timed = shares[: index + 1][-2:]
            rows.append(
                {
                    "level": level_name(entry["level"]),
                    "encoder": short(entry["encoder"]),
                    "decoder": short(entry["decoder"]),
                    "zero_channels": entry["zero_channels"] or None,
                    "skip_channels": entry["skip_channels"] or None,
                    "resolution": entry["resolution"],
                    "parameters": entry["parameters"] * 1e-6,
                    "share": 100 * entry["parameters"] / whole,
                    "kept": min(100.0, 100 * kept_share(counts, entry["level"])),
                    "gmacs": entry["count"]["macs_with_norms"] * 1e-9,
                    # What a level adds to those above it.
                    "latency": timed[-1] - sum(timed[:-1]) if timed else None,
                    "latency_kept": timed[-1] if timed else None,
                    **_published({k: v[index] for k, v in self.published.items()}),
                }
            )
        caption = self.caption + results.timed_on()
        shown: dict[str, Any] = {"brief": LEVELS_SHOWN, "pasted": LEVELS_PASTED}
        return Table(self.title, caption, LEVEL_COLUMNS, rows, **shown)


@dataclass(frozen=True)
class CostRow:
    """A row of a table of costs.

    Attributes:
        label: What the reader sees.
        translator: Id of the model.
        level: The level that is kept.
        steps: Sampling steps.
        published: Printed values: ``saved`` (per cent of the parameters), ``tmacs`` and
            ``seconds``.
    """

    label: str
    translator: str
    level: int
    steps: int
    published: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class CostTableSpec(LevelsSpec):
    """A table of what images cost at some levels (Table S8).

    Attributes:
        rows: The rows.
        unit: Of MACs, a key of `UNITS`.
    """

    kind: ClassVar[str] = "level_costs"

    rows: tuple[CostRow, ...]
    unit: str = "T"

    @property
    def translators(self) -> list[str]:
        """Return the models."""
        return list(dict.fromkeys(row.translator for row in self.rows))

    def table(self, results: Results) -> Table:
        """Return the table."""
        column, factor = UNITS[self.unit]
        rows: list[Cells] = []
        for row in self.rows:
            counts = results.levels[row.translator]
            timings = results.level_latency.get(row.translator, {})
            kept = sum(e["parameters"] for e in counts["levels"][: row.level])
            share = min(100.0, 100 * kept_share(counts, row.level))
            rows.append(
                {
                    "label": row.label,
                    "level": level_name(row.level),
                    "steps": row.steps,
                    "parameters": (kept + sum(counts["shared"].values())) * 1e-6,
                    "kept": share,
                    "saved": 100 - share,
                    column: image_macs(counts, row.level, row.steps) * factor,
                    "seconds": image_seconds(timings, row.level, row.steps),
                    **_published(row.published),
                }
            )
        caption = self.caption + results.timed_on()
        shown: dict[str, Any] = {"brief": COSTS_SHOWN, "pasted": COSTS_PASTED}
        return Table(self.title, caption, COST_COLUMNS, rows, **shown)


def image_macs(counts: Mapping[str, Any], level: int, steps: int) -> float:
    """Return the MACs of one image at a level: all UNet passes, guidance included.

    ControlNet's branch and its hint net are in each pass; encoders, decoders and the
    structure encoder are left out.
    """
    call = counts["levels"][level - 1]["count"]["macs_with_norms"]
    branch = counts["branch"]["macs_with_norms"] if counts["branch"] else 0
    return float(steps * counts["rows"] * (call + branch))


def image_seconds(timings: Mapping[str, Any], level: int, steps: int) -> float | None:
    """Return the seconds of the same, or None where nothing is timed."""
    if not timings:
        return None
    branch = typical_ms(timings["branch"]) if timings["branch"] else 0.0
    call = typical_ms(timings["levels"][str(level)])
    return steps * (call + branch) * 1e-3


@dataclass(frozen=True)
class MultiTableRow:
    """A row of Table S6.

    Attributes:
        row: The single depth that schedules are compared with.
        problem: A key of `clockwork_experiments.search.levels.PROBLEMS`.
        published: Printed values: ``time``, ``parameters`` and the two scores.
    """

    row: int
    problem: str
    published: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class MultiTableSpec(Spec):
    """What a level for each step gains over one level for all of them (Table S6).

    Attributes:
        rows: The rows.
        search: Id of our search; without one, our cells are unknown.
    """

    kind: ClassVar[str] = "multi_depth"

    rows: tuple[MultiTableRow, ...]
    search: str = ""

    def needs(self, known: Known) -> Needs:
        """Return the search, if there is one."""
        return (
            {"search": [f"{known.base}/depth/{self.search}.json"]}
            if self.search
            else {}
        )

    def table(self, results: Results) -> Table:
        """Return the table; a held-out gain has its interval beside it.

        Raises:
            ValueError: If the search has no answer for a row.
        """
        answers = {
            (answer["row"], answer["problem"]): answer
            for answer in results.search.get("multi", {}).get("rows", ())
        }
        rows: list[Cells] = []
        for row in self.rows:
            line: Cells = {
                "problem": f"({row.problem}) {PROBLEMS[row.problem].title}",
                "row": level_name(row.row),
                **_published(row.published),
            }
            if results.search:
                if (row.row, row.problem) not in answers:
                    raise ValueError(
                        f"the search has no answer for D{row.row} and problem "
                        f"({row.problem})"
                    )
                line |= _answer(answers[row.row, row.problem])
            rows.append(line)
        shown: dict[str, Any] = {"brief": MULTI_SHOWN, "stacked": True}
        return Table(self.title, self.caption, MULTI_COLUMNS, rows, **shown)


def _answer(answer: Mapping[str, Any]) -> Cells:
    gains = {name: answer["heldout"][name] for name in (LIKENESS, DIRECTION)}
    return {
        "levels": ", ".join(str(level) for level in answer["levels"]),
        # Measured time, where the levels were timed.
        **answer["savings"],
        "best_single": level_name(answer["best_single"]),
        "time_beyond": answer["beyond_best_single"]["savings"]["time"],
        **{n: Value(g["value"], g["low"], g["high"]) for n, g in gains.items()},
    }


def short(names: Sequence[str]) -> str:
    """Return diffusers' names of a level's modules in few letters.

    >>> short(["up_blocks.2.resnets.2", "up_blocks.2.upsamplers.0"])
    'up2.r2 + up'
    """
    kinds = {"resnets": "r", "attentions": "a"}
    texts = []
    for name in names:
        parts = name.split(".")
        if len(parts) < 4:
            texts.append(name.removesuffix("_block"))
            continue
        path, index = parts[0].removesuffix("_blocks"), parts[3]
        own = kinds[parts[2]] + index if parts[2] in kinds else path
        texts.append(own if texts else f"{path}{parts[1]}.{own}")
    return " + ".join(texts)
