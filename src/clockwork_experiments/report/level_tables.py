"""Set tables of depth-skip's levels: what each holds, and what keeping it costs.

Counts are those of `count_levels`, timings those of `time_levels`. Printed values stand
beside ours; what is not known is an em dash. Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from clockwork_experiments.cost.formulas import kept_share, typical_ms
from clockwork_experiments.report.tables import UNKNOWN, aligned_markdown, escape

UNITS = {"T": ("tmacs", 1e-12), "G": ("gmacs", 1e-9)}
"""Units of MACs: the column, and the factor."""

Cells = dict[str, float | str | None]
"""A row by column key."""


@dataclass(frozen=True)
class LevelColumn:
    """A column.

    Attributes:
        header: What the reader sees.
        digits: Decimals shown; None for text.
    """

    header: str
    digits: int | None = None


LEVEL_COLUMNS: dict[str, LevelColumn] = {
    "level": LevelColumn("level"),
    "encoder": LevelColumn("encoder"),
    "decoder": LevelColumn("decoder"),
    "zero_channels": LevelColumn("zero ch.", 0),
    "skip_channels": LevelColumn("skip ch.", 0),
    "resolution": LevelColumn("latents", 0),
    "parameters": LevelColumn("parameters, M", 3),
    "share": LevelColumn("parameters, %", 2),
    "share_published": LevelColumn("parameters, % (published)", 2),
    "kept": LevelColumn("cumulative, %", 2),
    "kept_published": LevelColumn("cumulative, % (published)", 2),
    "gmacs": LevelColumn("GMACs to here", 3),
    "latency": LevelColumn("latency, %", 2),
    "latency_published": LevelColumn("latency, % (published)", 2),
    "latency_kept": LevelColumn("cumulative latency, %", 2),
    "latency_kept_published": LevelColumn("cumulative latency, % (published)", 2),
}

COST_COLUMNS: dict[str, LevelColumn] = {
    "label": LevelColumn(""),
    "level": LevelColumn("level"),
    "steps": LevelColumn("steps", 0),
    "parameters": LevelColumn("parameters, M", 2),
    "kept": LevelColumn("kept, %", 2),
    "saved": LevelColumn("less, %", 1),
    "saved_published": LevelColumn("less, % (published)", 1),
    "gmacs": LevelColumn("GMACs", 3),
    "tmacs": LevelColumn("TMACs", 3),
    "tmacs_published": LevelColumn("TMACs (published)", 2),
    "seconds": LevelColumn("time, s", 3),
    "seconds_published": LevelColumn("time, s (published)", 3),
}


@dataclass(frozen=True)
class LevelTableSpec:
    """A table of a UNet's levels (Table S7).

    Attributes:
        title: Its heading.
        caption: What the reader must know, in full sentences.
        translator: Id of the model.
        published: Printed values by column, level 1 first: ``share``, ``kept``,
            ``latency`` or ``latency_kept``.
    """

    title: str
    caption: str
    translator: str
    published: dict[str, tuple[float, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Reject printed values of columns that have none."""
        for name in self.published:
            if f"{name}_published" not in LEVEL_COLUMNS:
                raise ValueError(f"nothing is published as {name!r}")


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
class CostTableSpec:
    """A table of what images cost at some levels (Table S8).

    Attributes:
        title: Its heading.
        caption: What the reader must know, in full sentences.
        rows: The rows.
        unit: Of MACs, ``T`` or ``G``.
    """

    title: str
    caption: str
    rows: tuple[CostRow, ...]
    unit: str = "T"

    def __post_init__(self) -> None:
        """Reject other units."""
        if self.unit not in UNITS:
            raise ValueError(f"unit {self.unit!r} is not one of {', '.join(UNITS)}")


def level_name(level: int) -> str:
    """Return a level as the paper writes it: ``D09``."""
    return f"D{level:02}"


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


def fill_levels(
    spec: LevelTableSpec, counts: Mapping[str, Any], timings: Mapping[str, Any]
) -> list[Cells]:
    """Return the rows of a table of levels.

    Args:
        spec: The table.
        counts: As `count_levels` writes them.
        timings: As `time_levels` writes them; empty if there are none.

    Raises:
        ValueError: If the printed values are not as many as the levels.
    """
    levels = counts["levels"]
    for name, values in spec.published.items():
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
    rows = []
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
                **{
                    f"{name}_published": values[index]
                    for name, values in spec.published.items()
                },
            }
        )
    return rows


def fill_costs(
    spec: CostTableSpec,
    counts: Mapping[str, Mapping[str, Any]],
    timings: Mapping[str, Mapping[str, Any]],
) -> list[Cells]:
    """Return the rows of a table of costs.

    Args:
        spec: The table.
        counts: Counts by model, as `count_levels` writes them.
        timings: Timings by model, as `time_levels` writes them, where there are any.

    Raises:
        ValueError: If a model is not counted.
    """
    rows = []
    for row in spec.rows:
        if row.translator not in counts:
            known = ", ".join(counts) or "none"
            raise ValueError(f"{row.translator!r} is not one of those counted: {known}")
        counted = counts[row.translator]
        levels = counted["levels"][: row.level]
        kept = sum(e["parameters"] for e in levels) + sum(counted["shared"].values())
        timed = timings.get(row.translator, {})
        share = min(100.0, 100 * kept_share(counted, row.level))
        column, factor = UNITS[spec.unit]
        rows.append(
            {
                "label": row.label,
                "level": level_name(row.level),
                "steps": row.steps,
                "parameters": kept * 1e-6,
                "kept": share,
                "saved": 100 - share,
                column: image_macs(counted, row.level, row.steps) * factor,
                "seconds": image_seconds(timed, row.level, row.steps),
                **{f"{name}_published": v for name, v in row.published.items()},
            }
        )
    return rows


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


# --- files ------------------------------------------------------------------------


def shown_columns(
    columns: Mapping[str, LevelColumn], rows: Sequence[Cells]
) -> dict[str, LevelColumn]:
    """Return the columns of which any row has something to say, be it a dash."""
    return {
        key: column
        for key, column in columns.items()
        if any(key in row for row in rows)
    }


def to_csv(columns: Mapping[str, LevelColumn], rows: Sequence[Cells]) -> str:
    """Return a table for machines."""
    shown = shown_columns(columns, rows)
    frame = pd.DataFrame([{key: row.get(key) for key in shown} for row in rows])
    text: str = frame.to_csv(index=False)
    return text


def to_markdown(
    title: str,
    caption: str,
    columns: Mapping[str, LevelColumn],
    rows: Sequence[Cells],
) -> str:
    """Return a table for people, in Markdown, with its title and caption."""
    frame = _text_frame(columns, rows)
    return f"**{title}**\n\n{aligned_markdown(frame)}\n\n{caption}\n"


def to_latex(
    title: str,
    caption: str,
    columns: Mapping[str, LevelColumn],
    rows: Sequence[Cells],
    label: str,
) -> str:
    """Return a table in LaTeX (booktabs)."""
    frame = _text_frame(columns, rows).map(escape)
    frame.columns = pd.Index([escape(header) for header in frame.columns])
    text: str = frame.to_latex(
        index=False,
        caption=escape(f"{title}. {caption}"),
        label=f"tab:{label}",
        position="tb",
    )
    return text.replace(UNKNOWN, "---").replace("−", "$-$")


def _text_frame(
    columns: Mapping[str, LevelColumn], rows: Sequence[Cells]
) -> pd.DataFrame:
    shown = shown_columns(columns, rows)
    lines = [
        [_show(row.get(key), column) for key, column in shown.items()] for row in rows
    ]
    return pd.DataFrame(lines, columns=[column.header for column in shown.values()])


def _show(value: float | str | None, column: LevelColumn) -> str:
    if value is None:
        return UNKNOWN
    if column.digits is None or isinstance(value, str):
        return str(value)
    return f"{value:.{column.digits}f}".replace("-", "−")
