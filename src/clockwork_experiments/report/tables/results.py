"""Rows of runs: published values beside ours; and the settings of one of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

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
from clockwork_experiments.report.kinds import Known, Needs
from clockwork_experiments.report.tables.table import (
    Cell,
    Cells,
    Column,
    Results,
    Spec,
    Table,
    Value,
)
from clockwork_experiments.score import dead
from clockwork_experiments.score.names import SCORES


@dataclass(frozen=True)
class Measure(Column):
    """A column that runs fill.

    Attributes:
        kind: A key of `SOURCES`.
        key: Which value of that kind.
    """

    kind: str = ""
    key: str = ""


def _of(kind: str, key: str, header: str, digits: int, factor: float = 1.0) -> Measure:
    saving = kind.endswith("saving")
    percent = " %" if saving else ""
    return Measure(header, digits, factor, saving, percent, kind=kind, key=key)


def _printed(key: str, header: str, digits: int = 0) -> Measure:
    return _of("published", key, header, digits)


ATTENDED = "flops_with_attention"
TERA, GIGA, MEGA, PERCENT = 1e-12, 1e-9, 1e-6, 100.0

COLUMNS: dict[str, Measure] = {
    "fid_published": _printed("fid", SCORES["frechet"].published_header, 2),
    "clip_published": _printed("clip", SCORES["clip"].published_header, 3),
    "tflops_published": _printed("tflops", "TFLOPs (published) ↓", 1),
    "tflops_recounted": _printed(
        "tflops_recounted", "TFLOPs (recounted from the paper) ↓", 1
    ),
    "gflops_per_call_published": _printed("call", "GFLOPs per call (published)"),
    "gpu_ms_published": _printed("gpu_ms", "RTX 3080 ms (published)"),
    "phone_ms_published": _printed("phone", "Galaxy S23 ms (published)"),
    "rtx3080_published": _printed("rtx3080", "RTX 3080 ms (published)"),
    "rtx2080ti_published": _printed("rtx2080ti", "RTX 2080 Ti ms (published)"),
    "v100_published": _printed("v100", "V100 ms (published)"),
    "a100_published": _printed("a100", "A100 ms (published)"),
    "edit_latency_published": _printed("edit_latency", "edit, s (published) ↓", 1),
    "kept_published": _printed("kept", "kept, % (published)", 1),
    "quality_published": _printed("quality", "quality (published)", 2),
    **{
        name: _of("score", name, SCORES[name].header, SCORES[name].digits)
        for name in (
            *("frechet", "clip", "psnr_to_teacher", "structure", "psnr_to_true"),
            *("psnr_to_source", "clip_image", "clip_direction", "lpips"),
            *("as_captioned", "agreement", "kernel", "caption_error"),
        )
    },
    "psnr_to_target": _of("score", "psnr", SCORES["psnr"].header, 2),
    "n": _of("n", "n", "n", 0),
    "tflops": _of("flops", "flops", "TFLOPs ↓", 3, TERA),
    "gflops": _of("flops", "flops", "GFLOPs ↓", 3, GIGA),
    "tflops_with_attention": _of("flops", ATTENDED, "TFLOPs with attention ↓", 3, TERA),
    "gflops_with_attention": _of("flops", ATTENDED, "GFLOPs with attention ↓", 3, GIGA),
    "tflops_kept": _of("flops_kept", "flops", "TFLOPs, upsampled kept ↓", 3, TERA),
    "gflops_kept": _of("flops_kept", "flops", "GFLOPs, upsampled kept ↓", 3, GIGA),
    "tflops_by_steps": _of(
        "flops_by_steps", "flops", "TFLOPs, steps × call ↓", 3, TERA
    ),
    "tflops_printed": _of("flops_printed", "flops", "TFLOPs by Eqs. 2–4 ↓", 1, TERA),
    "gflops_profiled": _of("profiled", "profiled", "GFLOPs, profiled ↓", 3, GIGA),
    "gflops_per_call": _of("call", "flops", "GFLOPs per call ↓", 1, GIGA),
    "mflops_per_call": _of("call", "flops", "MFLOPs per call ↓", 1, MEGA),
    "gflops_per_call_kept": _of(
        "call_kept", "flops", "GFLOPs per call, upsampled kept ↓", 1, GIGA
    ),
    "mflops_per_call_kept": _of(
        "call_kept", "flops", "MFLOPs per call, upsampled kept ↓", 1, MEGA
    ),
    "parameters": _of("parameters", "parameters", "parameters, M ↓", 2, MEGA),
    "kept": _of("kept", "parameters", "kept, %", 1, PERCENT),
    "saving": _of("saving", "flops", "FLOPs saved", 0, PERCENT),
    "saving_with_attention": _of(
        "saving", ATTENDED, "saved with attention", 0, PERCENT
    ),
    "latency": _of("latency", "mean_ms", "UNet ms ↓", 0),
    "latency_saving": _of("latency_saving", "mean_ms", "ms saved", 0, PERCENT),
    "edit_latency": _of("edit_latency", "mean_ms", "edit, s ↓", 2, 1e-3),
    "edit_latency_saving": _of(
        "edit_latency_saving", "mean_ms", "time saved", 0, PERCENT
    ),
    "memory_mb": _of("memory", "bytes", "kept per image, MB", 1, MEGA),
    "inversion_steps": _of("steps", "inversion.steps", "inversion steps", 0),
    "generation_steps": _of("steps", "generation.steps", "generation steps", 0),
}

SOURCES = {
    "published": "",
    "score": "scores",
    "n": "scores",
    "flops": "flops",
    "flops_kept": "flops",
    "flops_by_steps": "flops",
    "flops_printed": "flops",
    "profiled": "profiles",
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

COLUMN_SOURCES = {name: SOURCES[column.kind] for name, column in COLUMNS.items()}
"""The same by column."""


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
class TableSpec(Spec):
    """A table at one scale.

    Attributes:
        columns: Keys of `COLUMNS`.
        rows: The rows.
    """

    kind: ClassVar[str] = "results"

    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    def __post_init__(self) -> None:
        """Reject unknown columns."""
        for name in self.columns:
            if name not in COLUMNS:
                raise ValueError(f"column {name!r} is not one of {', '.join(COLUMNS)}")
        self.check_chosen(("label", *COLUMNS))

    @property
    def named(self) -> list[str]:
        """Return the runs of the rows and their baselines, once each."""
        names = [name for row in self.rows for name in (row.run, row.baseline)]
        return list(dict.fromkeys(name for name in names if name))

    def run_settings(self, known: Known) -> dict[str, dict[str, Any]]:
        """Return what decides the runs' FLOPs."""
        return {name: known.run(name) for name in self.named}

    def needs(self, known: Known) -> Needs:
        """Return the scores, counts and timings that the columns show."""
        runs = self.run_settings(known)
        sources = {SOURCES[COLUMNS[name].kind] for name in self.columns}
        models = dict.fromkeys(run["model"] for run in runs.values() if "model" in run)
        named = [run["translator"] for run in runs.values() if "translator" in run]
        files: Needs = {}
        if "scores" in sources:
            files["scores"] = known.scores(runs)
        if {"flops", "levels"} & sources:
            files["levels"] = _results(known, "levels", named)
        for source in ("flops", "profiles"):
            if source in sources:
                files[source] = _results(known, source, models)
        if "latency" in sources:
            files["latency"] = [f"{known.base}/latency/sampling.json"]
        if "edit_latency" in sources:
            files["edit_latency"] = [f"{known.base}/latency/editing.json"]
        return {key: paths for key, paths in files.items() if paths}

    def table(self, results: Results) -> Table:
        """Return the table."""
        columns: dict[str, Column] = {name: Column(None) for name in _NAMES}
        columns["label"] = Column("", csv=False, names=True)
        rows: list[Cells] = [
            {
                **{name: getattr(row, name) for name in _NAMES[1:]},
                "row": row.label,
                "label": f"{row.label} (ours)" if row.ours else row.label,
                **{name: cell(COLUMNS[name], row, results) for name in self.columns},
            }
            for row in self.rows
        ]
        columns |= {name: COLUMNS[name] for name in self.columns}
        return Table(self.title, self.caption, columns, rows)


def _results(known: Known, folder: str, names: Iterable[str]) -> list[str]:
    return [f"{known.base}/{folder}/{name}.json" for name in dict.fromkeys(names)]


_NAMES = ("row", "run", "ours")
"""What the CSV has of a row beside its numbers."""


def cell(column: Measure, row: Row, results: Results) -> Cell:
    """Return a cell, or None where there is nothing to say."""
    kind, key = column.kind, column.key
    if kind == "published":
        return row.published.get(key)
    if not row.run:
        return None
    if kind in ("score", "n"):
        return _score(column, results.scores.get(row.run, {}))
    if kind in ("latency", "latency_saving"):
        timed = results.latency.get("runs", {})
        return _milliseconds(column, timed, row.run, row.baseline)
    # What an edit takes is of no set.
    run, baseline = (name.partition("/")[2] for name in (row.run, row.baseline))
    if kind in ("edit_latency", "edit_latency_saving"):
        timed = results.edit_latency.get("runs", {})
        return _milliseconds(column, timed, run, baseline)
    if kind == "memory":
        kept: float | None = results.edit_latency.get("memory", {}).get(run)
        return kept
    settings = results.runs[row.run]
    if not settings:  # a source as it is costs nothing
        return None
    if "translator" in settings:
        return _of_translation(column, row, results)
    if kind == "steps":
        return setting(settings, key) if is_edited(settings) else None
    counts = results.flops.get(settings["model"])
    if counts is None:
        return None
    if kind == "profiled":
        profiles = results.profiles.get(settings["model"], {}).get("runs", {})
        profile: Mapping[str, float] = profiles.get(run, {})
        return profile.get(key)
    return _of_run(column, row, results, counts)


def _score(column: Measure, scored: Mapping[str, Any]) -> Cell:
    scores = scored.get("scores", {})
    if column.kind == "n":
        counted: dict[str, int] = scores.get("clip") or next(iter(scores.values()), {})
        return counted.get("n")
    if column.key not in scores:
        return None
    if marks.marks(scored):
        # A score of random weights says nothing of any model.
        return marks.SHOWN
    if dead.are_dead(scored):
        return dead.SHOWN
    return Value(*(scores[column.key][end] for end in ("value", "low", "high")))


def _milliseconds(
    column: Measure, timed: Mapping[str, Any], run: str, baseline: str
) -> float | None:
    if run not in timed:
        return None
    time = float(timed[run][column.key])
    if not column.kind.endswith("saving"):
        return time
    return time / timed[baseline][column.key] - 1 if baseline in timed else None


def _of_translation(column: Measure, row: Row, results: Results) -> float | None:
    """Return the number of a translation that its counts fill."""
    run = results.runs[row.run]
    counts = results.levels.get(run["translator"])
    if counts is None:
        return None
    if column.kind == "kept":
        return min(1.0, kept_share(counts, run.get("level", len(counts["levels"]))))
    if column.kind == "parameters":
        parameters: int = translation_count(run, counts)["parameters"]
        return parameters
    if column.kind not in ("flops", "saving"):
        return None
    flops = translation_flops(run, counts, column.key)
    if column.kind == "flops":
        return flops
    if not row.baseline:
        return None
    return flops / translation_flops(results.runs[row.baseline], counts, column.key) - 1


def _of_run(
    column: Measure, row: Row, results: Results, counts: Mapping[str, Any]
) -> float | None:
    """Return the number of a sampled or an edited run that its counts fill."""
    run, kind, key = results.runs[row.run], column.kind, column.key
    if is_edited(run):
        if kind in ("call", "call_kept", "flops_by_steps"):
            return None
        if kind == "flops_printed":
            return edit_flops(run, counts, key, printed=True)
    if kind == "parameters":
        return run_parameters(run, counts)
    if kind == "flops_by_steps":
        return run_flops(run, counts, key, by_steps=True)
    if kind in ("flops_kept", "call_kept"):
        if not reuses_upsampled(run, counts):
            return None
        count = run_flops if kind == "flops_kept" else call_flops
        return count(run, counts, key, step="step_after_upsampler")
    if kind == "call":
        return call_flops(run, counts, key)
    if kind == "flops":
        return run_flops(run, counts, key)
    if kind != "saving" or not row.baseline:
        return None
    other = run_flops(results.runs[row.baseline], counts, key)
    return run_flops(run, counts, key) / other - 1


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


@dataclass(frozen=True)
class SettingsSpec(Spec):
    """A table of settings: the paper's beside those of one of our runs.

    Attributes:
        run: Id of our run; an edited run is ``<edit_set>/<edit>/<setting>``.
        rows: The rows.
    """

    kind: ClassVar[str] = "settings"

    run: str
    rows: tuple[SettingRow, ...]

    def run_settings(self, known: Known) -> dict[str, dict[str, Any]]:
        """Return the settings of the run."""
        return {self.run: known.run(self.run)}

    def table(self, results: Results) -> Table:
        """Return the table.

        Raises:
            ValueError: If one of the run's settings does not exist.
        """
        run = results.runs[self.run]
        rows: list[Cells] = [
            {
                "setting": row.label,
                "published": row.published or None,
                "ours": plain(setting(run, row.ours) if row.ours else row.text) or None,
            }
            for row in self.rows
        ]
        columns = {name: Column(name) for name in ("published", "ours")}
        columns = {"setting": Column("setting", names=True), **columns}
        return Table(self.title, self.caption, columns, rows, align="left")


def plain(value: Any) -> str:
    """Return a setting as text: numbers without idle digits, lists with commas."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value)
    return str(value)
