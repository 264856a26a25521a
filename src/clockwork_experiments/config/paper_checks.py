"""Refuse tables, figures and claims on what there is not, or what does not compare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clockwork_experiments.config import parse
from clockwork_experiments.config.checks import (
    check_edited_run,
    check_equal,
    check_step_answer,
)
from clockwork_experiments.config.experiments import Settings, one_of
from clockwork_experiments.config.needs.editing import is_edited
from clockwork_experiments.config.registry import Registry
from clockwork_experiments.world.edits import KEEP_LAYOUT

STEP_FIGURES = ("step_plane", "step_ticks", "step_curves", "search_progress")
"""Kinds of figures of time steps."""


def check_papers(
    known: Registry, scale: str, columns: Mapping[str, str], steps: Mapping[str, type]
) -> None:
    """Refuse what papers show and claim at a scale, if that cannot be made.

    Args:
        known: What there is.
        scale: The scale.
        columns: Where the values of each column of tables of runs come from.
        steps: The classes of tables of time steps, by kind.

    Raises:
        ValueError: If something is wrong: the first of it, in one line.
    """
    for paper, name, table in known.items(scale, "tables"):
        what = f"{paper}, {name} at {scale} scale"
        if table.get("kind") in steps:
            _check_step_table(known, scale, what, table, steps[table["kind"]])
        else:
            _check_table(known, scale, what, table, columns)
    for paper, name, figure in known.items(scale, "figures"):
        _check_figure(known, scale, f"{paper}, {name} at {scale} scale", figure)
    for paper, registry in known.claims(scale):
        for name, claim in registry["claims"].items():
            what = f"{paper}, claim {name} at {scale} scale"
            for part in claim["parts"]:
                _check_part(known, scale, what, part, registry["margins"])


# --- tables ---------------------------------------------------------------------------


def _check_table(
    known: Registry,
    scale: str,
    what: str,
    table: Settings,
    columns: Mapping[str, str],
) -> None:
    kind = table.get("kind", "results")
    if kind == "multi_depth":
        for row in table["rows"] if "search" in table else ():
            _check_row(known, scale, what, {"search": table["search"], **row})
    elif kind == "joint":
        _check_joint(known, scale, what, table)
    elif kind == "settings":
        check_edited_run(known, scale, what, table["run"])
        for row in table["rows"]:
            if "ours" in row and "text" in row:
                raise ValueError(f"{what}: row {row['label']!r} has ours, and a text")
    elif kind == "results":
        for column in table["columns"]:
            if column not in columns:
                raise ValueError(f"{what}: column {one_of(column, columns, 'columns')}")
        runs = known.entries(scale, "runs") | known.entries(scale, "translations")
        # The images of a set, and the inputs of one of pairs, are shown beside runs.
        for shown in ("datasets", "translation_sets"):
            runs |= dict.fromkeys(known.entries(scale, shown), {})
        for row in table["rows"]:
            for key in ("run", "baseline"):
                if is_edited(row.get(key, "")):
                    check_edited_run(known, scale, what, row[key])
                elif key in row and row[key] not in runs:
                    raise ValueError(f"{what}: {key} {one_of(row[key], runs, 'runs')}")


def _check_step_table(
    known: Registry, scale: str, what: str, table: Settings, kind: type
) -> None:
    try:
        found: Any = parse.parse(
            kind, {key: value for key, value in table.items() if key != "kind"}
        )
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None
    # A scale that has no searches sets its tables with what is published alone.
    searches = getattr(found, "searches", ())
    for name in searches if known.entries(scale, "step_searches") else ():
        search = known.entry(scale, "step_searches", name)
        if table["kind"] == "step_scores":
            _check_judged(what, name, search)


def _check_judged(what: str, name: str, search: Settings) -> None:
    """Refuse scores of a search that holds no pairs out."""
    if search.get("heldout") is None:
        raise ValueError(
            f"{what}: step search {name!r} has no scores, since it has no heldout"
        )


def joint_searches(known: Registry, scale: str, item: Settings) -> Settings:
    """Return the searches of a table or figure of combinations, id to settings."""
    names = [
        combination["search"]
        for model in item["models"]
        for combination in model["combinations"]
    ]
    return {name: known.entry(scale, "step_searches", name) for name in names}


def _check_joint(known: Registry, scale: str, what: str, item: Settings) -> None:
    """Refuse combinations that are not compared with the same images."""
    alike = {"guidance": 1.0, "image_guidance": 1.0, "scheduler": "ddim"}
    keys = ("translator", "set", "heldout", "seed", "reference", *alike)
    for model in item["models"]:
        searches = joint_searches(known, scale, {"models": [model]})
        for name, search in searches.items():
            _check_judged(what, name, search)
        first = {**alike, **next(iter(searches.values()))}
        for name, search in searches.items():
            shared = f"{what}: searches of {model['label']!r}, {name!r} among them,"
            check_equal(shared, first, {**alike, **search}, *keys)
            if "level" in search and not search.get("whole_reference"):
                raise ValueError(
                    f"{what}: search {name!r} is not compared with the whole UNet"
                )


# --- figures --------------------------------------------------------------------------


def _check_figure(known: Registry, scale: str, what: str, figure: Settings) -> None:
    kind = figure.get("kind", "grid")
    if kind == "edit_curves":
        scores = [panel["score"] for panel in figure["panels"]]
        for name in (*scores, *curve_runs(figure)):
            if name.count("/") != 1:
                raise ValueError(f"{what}: {name!r} has not two parts, as a/b has")
    for shown in figure.get("adaptors", ()):
        if "model" not in known.entry(scale, "adaptors", shown["adaptor"]):
            raise ValueError(f"{what}: adaptor {shown['adaptor']!r} is not trained")
    for run in curve_runs(figure) if "series" in figure else ():
        if is_edited(run):
            for edit_set in panel_sets(figure):
                check_edited_run(known, scale, what, f"{edit_set}/{run}")
        else:
            known.entry(scale, "runs", run)
    if "translations" in figure:
        pairs = {"set": figure["set"]}
        for shown in figure["translations"]:
            chosen = known.entry(scale, "translations", shown["translation"])
            check_equal(f"{what}: its pairs and those of", pairs, chosen, "set")
    if kind in STEP_FIGURES:
        _check_step_figure(known, scale, what, figure)
    if kind == "joint_pareto":
        _check_joint(known, scale, what, figure)
    if "edit_set" in figure:
        for run in figure_edits(figure):
            check_edited_run(known, scale, what, f"{figure['edit_set']}/{run}")
    if kind in ("edit_grid", "translation_grid"):
        _check_pairs(known, scale, what, figure)
    if kind == "grid":
        _check_grid(known, scale, what, figure)


def curve_runs(figure: Settings) -> list[str]:
    """Return the runs of a figure with curves."""
    points = [point for series in figure["series"] for point in series["points"]]
    return list(dict.fromkeys(point["run"] for point in points))


def panel_sets(figure: Settings) -> list[str]:
    """Return the editing sets whose scores a figure with curves shows."""
    scores = [panel["score"] for panel in figure["panels"]]
    return list(dict.fromkeys(score.partition("/")[0] for score in scores))


def figure_edits(figure: Settings) -> list[str]:
    """Return the edited runs of a figure of one set, ``<edit>/<setting>``."""
    if figure["kind"] == "edit_timings":
        return [
            f"{shown['edit']}/{column['setting']}"
            for shown in figure["edits"]
            for column in figure["settings"]
        ]
    return [shown["run"] for shown in figure["edits"]]


def figure_answers(figure: Settings) -> list[Settings]:
    """Return what a figure of time steps shows of searches."""
    shown = [figure, *figure.get("groups", ()), *figure.get("panels", ())]
    return [each for each in shown if "search" in each]


def _check_step_figure(
    known: Registry, scale: str, what: str, figure: Settings
) -> None:
    for shown in figure_answers(figure):
        search = known.entry(scale, "step_searches", shown["search"])
        if "steps" in shown and "method" in shown:
            check_step_answer(known, scale, what, shown)
        if figure["kind"] in ("step_plane", "step_curves"):
            _check_judged(what, shown["search"], search)


def _check_grid(known: Registry, scale: str, what: str, figure: Settings) -> None:
    """Refuse a grid of runs that share no prompts, or of prompts that they lack."""
    runs = [known.entry(scale, "runs", shown["run"]) for shown in figure["runs"]]
    for run in runs:
        check_equal(f"{what}: runs", runs[0], run, "dataset")
    count = known.entry(scale, "datasets", runs[0]["dataset"])["count"]
    if max(figure["prompts"]) >= count:
        raise ValueError(
            f"{what}: prompt {max(figure['prompts'])} is not one of the {count}"
        )


def _check_pairs(known: Registry, scale: str, what: str, figure: Settings) -> None:
    """Refuse pairs that a set of scenes lacks; how many a folder has, its files say."""
    if "edit_set" in figure:
        chosen = known.entry(scale, "edit_sets", figure["edit_set"])
        each = len(chosen.get("kinds", KEEP_LAYOUT))
        last = max(figure.get("pairs", ()), default=0)
    else:
        chosen = known.entry(scale, "translation_sets", figure["set"])
        ends = [group.get("skip", 0) + group["count"] for group in figure["groups"]]
        each, last = 1, max(ends) - 1
    if chosen.get("count") and chosen.get("source", "scenes") == "scenes":
        there = chosen["count"] * each
        if last >= there:
            raise ValueError(f"{what}: pair {last} is not one of the {there}")


# --- claims ---------------------------------------------------------------------------


def part_runs(part: Settings, margins: Settings) -> list[str]:
    """Return the runs that a part of a claim is about, those of its margin included."""
    margin = margins[part["margin"]]
    return [
        *([part["of"]] if "of" in part else []),
        *part.get("over", ()),
        *([part["to"]] if "to" in part else []),
        *(margin[key] for key in ("better", "worse") if key in margin),
    ]


def _check_part(
    known: Registry, scale: str, what: str, part: Settings, margins: Settings
) -> None:
    """Refuse a part on runs that there are not, or that share no prompts and seeds."""
    if part["margin"] not in margins:
        raise ValueError(f"{what}: {one_of(part['margin'], margins, 'margins')}")
    runs = part_runs(part, margins)
    edited = [run for run in runs if is_edited(run)]
    for run in edited:
        check_edited_run(known, scale, what, run)
    if edited:
        return
    if "multi" in part:
        _check_row(known, scale, what, part["multi"])
    if "steps" in part:
        check_step_answer(known, scale, what, part["steps"])
    translations = known.entries(scale, "translations")
    section, keys = "runs", ("dataset", "seed")
    if any(run in translations for run in runs):
        section, keys = "translations", ("set", "seed")
    there = known.entries(scale, section)
    for run in runs:
        if run not in there:
            called = "run " if section == "runs" else ""
            raise ValueError(f"{what}: {called}{one_of(run, there, section)}")
        check_equal(f"{what}: {section}", there[runs[0]], there[run], *keys)
    timed = known.entries(scale, "latency").get("runs", ())
    for run in runs if "latency" in part["metrics"] else ():
        if run not in timed:
            listed = ", ".join(timed) or "none"
            raise ValueError(
                f"{what}: run {run!r} is not one of those timed ({listed})"
            )
    if "perturbation" in part:
        _check_cells(known, scale, what, part)


def _check_row(known: Registry, scale: str, what: str, asked: Settings) -> None:
    """Refuse answers that a search of levels for each step does not have."""
    search = known.entry(scale, "depth_searches", asked["search"])
    rows = search.get("multi", {}).get("rows", ())
    if asked["row"] not in rows:
        listed = ", ".join(map(str, rows)) or "none"
        raise ValueError(
            f"{what}: row {asked['row']} is not one of those that search "
            f"{asked['search']!r} has ({listed})"
        )


def _check_cells(known: Registry, scale: str, what: str, part: Settings) -> None:
    """Refuse cells that a perturbation's grid does not have."""
    grid = known.entry(scale, "perturbations", part["perturbation"])["spec"]
    asked = [("alphas", part.get("alpha", 0))]
    for cell in part["cells"]:
        asked += [("layers", cell["layer"]), ("starts", cell["start"])]
    for key, value in asked:
        if value not in grid[key]:
            listed = ", ".join(map(str, grid[key]))
            raise ValueError(
                f"{what}: {value!r} is not one of the {key} of perturbation "
                f"{part['perturbation']!r} ({listed})"
            )
