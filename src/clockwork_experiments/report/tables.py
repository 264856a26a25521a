"""Set tables: published values beside ours, with n and intervals.

A table is a list of rows; a cell is a published number, a measured score with its
interval, a count, or an em dash for what is not known. Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from clockwork_experiments.cost.formulas import (
    call_flops,
    edit_flops,
    kept_share,
    reuses_upsampled,
    run_flops,
    run_parameters,
    translation_count,
    translation_flops,
)
from clockwork_experiments.random import marks
from clockwork_experiments.score.names import SCORES

UNKNOWN = "—"


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        label: What the reader sees.
        run: Id of the run that fills our cells; empty if only published values exist.
            An edited run is ``<edit_set>/<edit>/<setting>``, and it may be a
            translation.
        baseline: Id of the run that savings refer to.
        published: Printed values by key.
        ours: Whether the row is an addition of ours, not in the paper.
    """

    label: str
    run: str = ""
    baseline: str = ""
    published: dict[str, float] = field(default_factory=dict)
    ours: bool = False


@dataclass(frozen=True)
class TableSpec:
    """A table at one scale.

    Attributes:
        title: Its heading.
        caption: What the reader must know, in full sentences.
        columns: Keys of `COLUMNS`.
        rows: The rows.
    """

    title: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    def __post_init__(self) -> None:
        """Reject unknown columns."""
        for name in self.columns:
            if name not in COLUMNS:
                raise ValueError(f"column {name!r} is not one of {', '.join(COLUMNS)}")


@dataclass(frozen=True)
class Results:
    """What runs have yielded, as plain data read from JSON.

    Attributes:
        runs: Settings of each run by id: ``model``, ``adaptor``, ``sampler``; of
            translations ``translator`` and how it samples.
        scores: Scores by run, as `score_images` and `score_translations` write them.
        flops: Counts by model, as `count_flops` writes them.
        latency: Timings, as `time_sampling` writes them.
        profiles: Profiles of edits by model, as `profile_editing` writes them.
        edit_latency: Timings of edits by ``<edit>/<setting>``, and the bytes that each
            keeps of an image, as `time_editing` writes them.
        levels: Counts of translators' levels, as `count_levels` writes them.
    """

    runs: Mapping[str, Mapping[str, Any]]
    scores: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    flops: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    latency: Mapping[str, Any] = field(default_factory=dict)
    edit_latency: Mapping[str, Any] = field(default_factory=dict)
    profiles: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    levels: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Value:
    """A number of a cell, with an interval if it has one."""

    value: float
    low: float | None = None
    high: float | None = None


WITHHELD = Value(float("nan"))
"""Stands where a score of random weights would: it says nothing of any model."""


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        header: What the reader sees.
        kind: A key of `SOURCES`.
        key: Which value of that kind.
        digits: Decimals shown.
        factor: Applied before showing.
    """

    header: str
    kind: str
    key: str
    digits: int
    factor: float = 1.0


SHOWN_SCORES = {
    **{name: name for name in ("frechet", "clip", "psnr_to_teacher", "structure")},
    **{name: name for name in ("psnr_to_true", "psnr_to_source", "lpips")},
    **{name: name for name in ("clip_image", "clip_direction")},
    "psnr_to_target": "psnr",
}
"""Columns of scores, and the scores that they show."""

COLUMNS: dict[str, Column] = {
    "fid_published": Column(SCORES["frechet"].published_header, "published", "fid", 2),
    "clip_published": Column(SCORES["clip"].published_header, "published", "clip", 3),
    "tflops_published": Column("TFLOPs (published) ↓", "published", "tflops", 1),
    "gpu_ms_published": Column("RTX 3080 ms (published)", "published", "gpu_ms", 0),
    "phone_ms_published": Column("Galaxy S23 ms (published)", "published", "phone", 0),
    "rtx3080_published": Column("RTX 3080 ms (published)", "published", "rtx3080", 0),
    "rtx2080ti_published": Column(
        "RTX 2080 Ti ms (published)", "published", "rtx2080ti", 0
    ),
    "v100_published": Column("V100 ms (published)", "published", "v100", 0),
    "a100_published": Column("A100 ms (published)", "published", "a100", 0),
    "tflops": Column("TFLOPs ↓", "flops", "flops", 3, 1e-12),
    "tflops_with_attention": Column(
        "TFLOPs with attention ↓", "flops", "flops_with_attention", 3, 1e-12
    ),
    "tflops_kept": Column("TFLOPs, upsampled kept ↓", "flops_kept", "flops", 3, 1e-12),
    "gflops_kept": Column("GFLOPs, upsampled kept ↓", "flops_kept", "flops", 3, 1e-9),
    "gflops": Column("GFLOPs ↓", "flops", "flops", 3, 1e-9),
    "gflops_with_attention": Column(
        "GFLOPs with attention ↓", "flops", "flops_with_attention", 3, 1e-9
    ),
    "tflops_by_steps": Column(
        "TFLOPs, steps × call ↓", "flops_by_steps", "flops", 3, 1e-12
    ),
    "gflops_per_call": Column("GFLOPs per call ↓", "call", "flops", 1, 1e-9),
    "mflops_per_call": Column("MFLOPs per call ↓", "call", "flops", 1, 1e-6),
    "gflops_per_call_kept": Column(
        "GFLOPs per call, upsampled kept ↓", "call_kept", "flops", 1, 1e-9
    ),
    "mflops_per_call_kept": Column(
        "MFLOPs per call, upsampled kept ↓", "call_kept", "flops", 1, 1e-6
    ),
    "gflops_per_call_published": Column(
        "GFLOPs per call (published)", "published", "call", 0
    ),
    "parameters": Column("parameters, M ↓", "parameters", "parameters", 2, 1e-6),
    "saving": Column("FLOPs saved", "saving", "flops", 0, 100.0),
    "saving_with_attention": Column(
        "saved with attention", "saving", "flops_with_attention", 0, 100.0
    ),
    "latency": Column("UNet ms ↓", "latency", "mean_ms", 0),
    "latency_saving": Column("ms saved", "latency_saving", "mean_ms", 0, 100.0),
    "n": Column("n", "n", "n", 0),
    "memory_mb": Column("kept per image, MB", "memory", "bytes", 1, 1e-6),
    "edit_latency": Column("edit, s ↓", "edit_latency", "mean_ms", 2, 1e-3),
    "edit_latency_saving": Column(
        "time saved", "edit_latency_saving", "mean_ms", 0, 100.0
    ),
    "edit_latency_published": Column(
        "edit, s (published) ↓", "published", "edit_latency", 1
    ),
    "inversion_steps": Column("inversion steps", "steps", "inversion.steps", 0),
    "generation_steps": Column("generation steps", "steps", "generation.steps", 0),
    "tflops_recounted": Column(
        "TFLOPs (recounted from the paper) ↓", "published", "tflops_recounted", 1
    ),
    "gflops_profiled": Column(
        "GFLOPs, profiled ↓", "flops_profiled", "profiled", 3, 1e-9
    ),
    "kept": Column("kept, %", "kept", "parameters", 1, 100.0),
    "kept_published": Column("kept, % (published)", "published", "kept", 1),
    "quality_published": Column("quality (published)", "published", "quality", 2),
    "tflops_printed": Column(
        "TFLOPs by Eqs. 2–4 ↓", "flops_printed", "flops", 1, 1e-12
    ),
    **{
        column: Column(SCORES[key].header, "score", key, SCORES[key].digits)
        for column, key in SHOWN_SCORES.items()
    },
}

SOURCES = {
    "published": "",
    "score": "scores",
    "n": "scores",
    "flops": "flops",
    "flops_kept": "flops",
    "flops_by_steps": "flops",
    "flops_printed": "flops",
    "flops_profiled": "profiles",
    "call": "flops",
    "call_kept": "flops",
    "parameters": "flops",
    "kept": "levels",
    "saving": "flops",
    "latency": "latency",
    "latency_saving": "latency",
    "edit_latency": "edit_latency",
    "edit_latency_saving": "edit_latency",
    "memory": "edit_latency",
    "steps": "runs",
}
"""Which field of `Results` fills columns of a kind; none if the paper does."""


def cell(column: Column, row: Row, results: Results) -> Value | None:
    """Return the number of a cell, or None where there is none."""
    if column.kind == "published":
        value = row.published.get(column.key)
        return None if value is None else Value(float(value))
    if not row.run:
        return None
    if column.kind in ("score", "n"):
        scored = results.scores.get(row.run, {})
        scores = scored.get("scores", {})
        if column.kind == "n":
            counted = scores.get("clip") or next(iter(scores.values()), None)
            return None if counted is None else Value(counted["n"])
        score = scores.get(column.key)
        if score is None:
            return None
        if marks.marks(scored):
            return WITHHELD
        return Value(score["value"], score["low"], score["high"])
    if column.kind.startswith("latency"):
        timed = results.latency.get("runs", {})
        return _latency(column, timed, row.run, row.baseline)
    if column.kind.startswith("edit_latency"):
        timed = results.edit_latency.get("runs", {})
        return _latency(
            column, timed, _without_set(row.run), _without_set(row.baseline)
        )
    if column.kind == "memory":
        kept = results.edit_latency.get("memory", {}).get(_without_set(row.run))
        return None if kept is None else Value(kept)
    settings = results.runs[row.run]
    if not settings:  # a source as it is costs nothing
        return None
    if is_translation(settings):
        return _translated(column, row, results)
    if column.kind == "kept":
        return None
    if column.kind == "steps":
        return Value(setting(settings, column.key)) if is_edited(settings) else None
    if is_edited(settings) and column.kind in ("call", "call_kept", "flops_by_steps"):
        return None
    counts = results.flops.get(settings["model"])
    if counts is None:
        return None
    if column.kind == "flops_profiled":
        profile = results.profiles.get(settings["model"], {}).get("runs", {})
        name = _without_set(row.run)
        return Value(profile[name][column.key]) if name in profile else None
    if column.kind == "flops_printed":
        if not is_edited(settings):
            return None
        return Value(edit_flops(settings, counts, column.key, printed=True))
    if column.kind == "parameters":
        return Value(run_parameters(settings, counts))
    if column.kind.endswith("_kept"):
        if not reuses_upsampled(settings, counts):
            return None
        count = run_flops if column.kind == "flops_kept" else call_flops
        value = count(settings, counts, column.key, step="step_after_upsampler")
        return Value(value)
    by_steps = column.kind == "flops_by_steps"
    value = run_flops(results.runs[row.run], counts, column.key, by_steps=by_steps)
    if by_steps:
        return Value(value)
    if column.kind == "flops":
        return Value(value)
    if column.kind == "call":
        return Value(call_flops(results.runs[row.run], counts, column.key))
    if not row.baseline:
        return None
    return Value(value / run_flops(results.runs[row.baseline], counts, column.key) - 1)


def _translated(column: Column, row: Row, results: Results) -> Value | None:
    """Return the number of a translation's cell that its counts fill."""
    run = results.runs[row.run]
    counts = results.levels.get(run["translator"])
    if counts is None:
        return None
    if column.kind == "kept":
        return Value(
            min(1.0, kept_share(counts, run.get("level", len(counts["levels"]))))
        )
    if column.kind == "parameters":
        return Value(translation_count(run, counts)["parameters"])
    if column.kind == "flops":
        return Value(translation_flops(run, counts, column.key))
    if column.kind == "saving" and row.baseline:
        value, other = (
            translation_flops(results.runs[name], counts, column.key)
            for name in (row.run, row.baseline)
        )
        return Value(value / other - 1)
    return None


def is_translation(run: Mapping[str, Any]) -> bool:
    """Tell whether settings are those of a translation."""
    return "translator" in run


def is_edited(run: Mapping[str, Any]) -> bool:
    """Tell whether settings are those of an edited run."""
    return "generation" in run


def setting(run: Mapping[str, Any], path: str) -> Any:
    """Return one of a run's settings.

    Args:
        run: The settings.
        path: Keys joined by dots, such as ``generation.guidance``.

    Raises:
        ValueError: If there is no such setting.
    """
    value: Any = run
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            known = ", ".join(value) if isinstance(value, Mapping) else "none"
            raise ValueError(f"setting {path!r}: {key!r} is not one of {known}")
        value = value[key]
    return value


def _without_set(run: str) -> str:
    """Return an edited run's name without its set: what it takes is of no set."""
    return run.partition("/")[2]


def _latency(
    column: Column, timed: Mapping[str, Any], run: str, baseline: str
) -> Value | None:
    if run not in timed:
        return None
    if not column.kind.endswith("saving"):
        return Value(timed[run][column.key])
    if baseline not in timed:
        return None
    return Value(timed[run][column.key] / timed[baseline][column.key] - 1)


def fill(spec: TableSpec, results: Results) -> list[list[Value | None]]:
    """Return the numbers of a table, a list per row in the order of its columns."""
    return [
        [cell(COLUMNS[name], row, results) for name in spec.columns]
        for row in spec.rows
    ]


def _show(column: Column, value: Value | None, *, latex: bool = False) -> str:
    if value is None:
        return UNKNOWN
    if value is WITHHELD:
        return marks.SHOWN
    if column.kind.endswith("saving"):
        percent = "\\%" if latex else "%"
        return f"{value.value * column.factor:+.0f} {percent}".replace("-", "−")
    digits = column.digits

    def show(number: float) -> str:
        return f"{number * column.factor:.{digits}f}"

    if value.low is None or value.high is None:
        return show(value.value)
    return f"{show(value.value)} [{show(value.low)}, {show(value.high)}]"


def to_frame(spec: TableSpec, cells: list[list[Value | None]]) -> pd.DataFrame:
    """Return a table with a column per number, intervals included, for machines."""
    data: dict[str, list[Any]] = {
        "row": [row.label for row in spec.rows],
        "run": [row.run for row in spec.rows],
        "ours": [row.ours for row in spec.rows],
    }
    for index, name in enumerate(spec.columns):
        values = [line[index] for line in cells]
        data[name] = [
            marks.SHOWN if v is WITHHELD else None if v is None else v.value
            for v in values
        ]
        if any(v is not None and v.low is not None for v in values):
            data[f"{name}_low"] = [None if v is None else v.low for v in values]
            data[f"{name}_high"] = [None if v is None else v.high for v in values]
    return pd.DataFrame(data)


def to_markdown(spec: TableSpec, cells: list[list[Value | None]]) -> str:
    """Return a table for people, in Markdown, with its title and caption."""
    return _markdown(spec, _text_frame(spec, cells), "right")


def to_latex(spec: TableSpec, cells: list[list[Value | None]], label: str) -> str:
    """Return a table in LaTeX (booktabs)."""
    text = _latex(spec, _text_frame(spec, cells, latex=True), label)
    return text.replace(UNKNOWN, "---").replace("−", "$-$")


def _markdown(spec: TableSpec | SettingsSpec, frame: pd.DataFrame, align: str) -> str:
    """Return a table with title and caption; numbers keep the digits they were given.

    All its columns but the first are aligned ``left`` or ``right``.
    """
    return f"**{spec.title}**\n\n{aligned_markdown(frame, align)}\n\n{spec.caption}\n"


def aligned_markdown(frame: pd.DataFrame, align: str = "right") -> str:
    """Return a Markdown table; numbers keep the digits that they were given."""
    columns = ["left"] + [align] * (frame.shape[1] - 1)
    text: str = frame.to_markdown(index=False, disable_numparse=True, colalign=columns)
    return text


def _latex(spec: TableSpec | SettingsSpec, frame: pd.DataFrame, label: str) -> str:
    caption = escape(f"{spec.title}. {spec.caption}")
    text: str = frame.to_latex(
        index=False, caption=caption, label=f"tab:{label}", position="tb"
    )
    return text


def _text_frame(
    spec: TableSpec, cells: list[list[Value | None]], *, latex: bool = False
) -> pd.DataFrame:
    columns = [COLUMNS[name] for name in spec.columns]
    rows = [
        [
            escape(_label(row)) if latex else _label(row),
            *(
                _show(column, value, latex=latex)
                for column, value in zip(columns, line, strict=True)
            ),
        ]
        for row, line in zip(spec.rows, cells, strict=True)
    ]
    headers = ["", *(column.header for column in columns)]
    if latex:
        headers = [escape(header) for header in headers]
    return pd.DataFrame(rows, columns=headers)


def _label(row: Row) -> str:
    return f"{row.label} (ours)" if row.ours else row.label


def escape(text: str) -> str:
    """Return text as LaTeX takes it."""
    for symbol, replacement in (
        ("\\", "\\textbackslash{}"),
        ("&", "\\&"),
        ("%", "\\%"),
        ("_", "\\_"),
        ("#", "\\#"),
        ("<", "\\textless{}"),
        (">", "\\textgreater{}"),
        ("τ", "$\\tau$"),
        ("γ", "$\\gamma$"),
        ("Δ", "$\\Delta$"),
        ("↓", "$\\downarrow$"),
        ("↑", "$\\uparrow$"),
        ("×", "$\\times$"),
    ):
        text = text.replace(symbol, replacement)
    return text


# --- settings ---------------------------------------------------------------------


@dataclass(frozen=True)
class SettingRow:
    """A row of a table of settings.

    Attributes:
        label: What the reader sees.
        published: What the paper prints; empty if it does not say.
        ours: Key path of our value, such as ``generation.guidance``.
        text: Our value where it is no setting but the same for every run.
    """

    label: str
    published: str = ""
    ours: str = ""
    text: str = ""

    def __post_init__(self) -> None:
        """Reject rows that name our value twice."""
        if self.ours and self.text:
            raise ValueError(
                f"row {self.label!r} has a key path {self.ours!r} and a text "
                f"{self.text!r}; give one of them"
            )


@dataclass(frozen=True)
class SettingsSpec:
    """A table of settings: the paper's beside those of one of our runs.

    Attributes:
        title: Its heading.
        caption: What the reader must know, in full sentences.
        run: Id of our run; an edited run is ``<edit_set>/<edit>/<setting>``.
        rows: The rows.
    """

    title: str
    caption: str
    run: str
    rows: tuple[SettingRow, ...]


def fill_settings(
    spec: SettingsSpec, runs: Mapping[str, Mapping[str, Any]]
) -> pd.DataFrame:
    """Return a table of settings as text; what is not known is empty.

    Raises:
        ValueError: If the run or one of its settings does not exist.
    """
    if spec.run not in runs:
        known = ", ".join(runs) or "none"
        raise ValueError(f"run {spec.run!r} is not one of those given ({known})")
    ours = [
        plain(setting(runs[spec.run], row.ours)) if row.ours else row.text
        for row in spec.rows
    ]
    return pd.DataFrame(
        {
            "setting": [row.label for row in spec.rows],
            "published": [row.published for row in spec.rows],
            "ours": ours,
        }
    )


def plain(value: Any) -> str:
    """Return a setting as text: numbers without idle digits, lists with commas."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value)
    return str(value)


def settings_to_markdown(spec: SettingsSpec, frame: pd.DataFrame) -> str:
    """Return a table of settings for people, in Markdown."""

    def show(text: str) -> str:
        # "a <style> of" must not become a tag, nor a bar a column.
        for symbol, replacement in (("<", "&lt;"), (">", "&gt;"), ("|", "\\|")):
            text = text.replace(symbol, replacement)
        return text or UNKNOWN

    return _markdown(spec, frame.map(show), "left")


def settings_to_latex(spec: SettingsSpec, frame: pd.DataFrame, label: str) -> str:
    """Return a table of settings in LaTeX (booktabs)."""
    return _latex(spec, frame.map(lambda cell: escape(cell) or "---"), label)
