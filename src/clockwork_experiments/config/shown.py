"""What papers may show and claim, as a schema: that of the kinds that there are.

Kinds of tables and figures describe their own settings; here is what these may be.
"""

from __future__ import annotations

from typing import Annotated, Any

from clockwork_experiments.claims.registry import KINDS as TESTS
from clockwork_experiments.claims.registry import METRICS, ClaimsSpec
from clockwork_experiments.config.schema import ELSEWHERE, Schema, define
from clockwork_experiments.config.types import (
    Bounds,
    Items,
    Level,
    Natural,
    OneOf,
    Positive,
    Ref,
    Share,
    Steps,
    Text,
)
from clockwork_experiments.report import kinds
from clockwork_experiments.report.tables import joint, levels
from clockwork_experiments.report.tables.timesteps import METHODS
from clockwork_experiments.search.levels import PROBLEMS
from clockwork_experiments.search.methods import METHODS as SEARCHED

Method = Annotated[str, OneOf(tuple(METHODS), elsewhere=True)]
Found = Annotated[str, OneOf(tuple(SEARCHED), elsewhere=True)]
Methods = Annotated[tuple[Method, ...], Items(1, unique=True)]
Names = Annotated[tuple[str, ...], Items(1, unique=True)]
Naturals = Annotated[tuple[Natural, ...], Items(1)]
Few = Annotated[int, Bounds(2, 1000)]
Counts = Annotated[tuple[Few, ...], Items(1)]
Searched = Annotated[str, Ref("step_searches")]
Unit = Annotated[str, OneOf(tuple(joint.UNITS))]
Depth = Annotated[str, Ref("depth_searches")]
Edited = Annotated[str, Text("[^/]+/[^/]+")]


Axis = Annotated[str, OneOf(("TFLOPs", "GFLOPs"))]
Style = Annotated[str, OneOf(("baseline", "clockwork", "comparison"))]
JointScore = Annotated[str, OneOf(("clip", "clip_image", "clip_direction", "psnr"))]
OfLevel = Annotated[str, OneOf(("share", "kept", "latency", "latency_kept"))]
OfCost = Annotated[str, OneOf(("saved", "tmacs", "seconds"))]
OfRow = Annotated[str, OneOf(("time", "clip_image", "clip_direction", "parameters"))]

NARROWED: dict[str, Any] = {
    "model": Annotated[str, Ref("models")],
    "adaptor": Annotated[str, Ref("adaptors")],
    "translator": Annotated[str, Ref("translators")],
    "perturbation": Annotated[str, Ref("perturbations")],
    "translation": Annotated[str, Ref("translations")],
    "set": Annotated[str, Ref("translation_sets")],
    "edit_set": Annotated[str, Ref("edit_sets")],
    "edit": Annotated[str, Ref("editing.edits")],
    "setting": Annotated[str, Ref("editing.settings")],
    **{"search": Searched, "than": Searched, "method": Method, "methods": Methods},
    "MultiTableSpec.search": Depth,
    "MultiRow.search": Depth,
    "DepthPanel.search": Depth,
    "JointTableSpec.method": Found,
    "JointParetoSpec.method": Found,
    # A scale without searches shows what is published alone.
    "GammaColumn.search": str,
    "StepRows.search": str,
    "StepAnswer.over": Method,
    **{"level": Level, "row": Level, "steps": Steps, "alpha": Share},
    **{"MethodSpec.steps": Few, "MethodSpec.clock": Few, "StepRows.steps": Few},
    **{"GammaTableSpec.steps": Counts, "StepGroup.steps": Counts},
    "StepAnswer.steps": Few,
    **{"start": Natural, "starts": Naturals, "prompt": Natural, "prompts": Naturals},
    **{"pair": Natural, "count": Positive, "skip": Natural},
    "pairs": Annotated[tuple[Natural, ...], Items(0)],
    "BlockMapSpec.size": Annotated[int, Bounds(8, 8192)],
    **{"tau_f": Share, "tau_a": Share, "zoom": Annotated[float, Bounds(0, 64)]},
    "CurvesSpec.columns": Natural,
    **{
        f"{kind}.columns": Positive
        for kind in (
            *("DepthCurvesSpec", "EditGridSpec", "FigureSpec", "StepCurvesSpec"),
            *("SearchProgressSpec", "TranslationGridSpec"),
        )
    },
    "TableSpec.columns": Annotated[tuple[str, ...], Items(1)],
    "ScoreTableSpec.columns": Names,
    **{"x_label": Axis, "unit": Unit},
    "CostTableSpec.unit": Annotated[str, OneOf(tuple(levels.UNITS))],
    "style": Style,
    "problem": Annotated[str, OneOf(tuple(PROBLEMS))],
    "JointModel.scores": Annotated[
        tuple[JointScore, ...],
        Items(0, unique=True),
    ],
    "LevelTableSpec.published": dict[OfLevel, tuple[float, ...]],
    "CostRow.published": dict[OfCost, float],
    "MultiTableRow.published": dict[OfRow, float],
    "SettingRow.ours": Annotated[str, Text("[a-z_]+([.][a-z_]+)*")],
    "ShownEdit.run": Edited,
    "test": Annotated[str, OneOf(tuple(TESTS))],
    "Part.metrics": Annotated[
        tuple[Annotated[str, OneOf(tuple(METRICS))], ...], Items(1, unique=True)
    ],
    **{"Part.over": Names, "Part.kinds": Names},
    "Margin.at_most": float,
    "Margin.share": Annotated[float, Bounds(above=0)],
    "Margin.shares": dict[str, Annotated[float, Bounds(above=0)]],
    "expected": Annotated[float, Bounds(above=0)],
}
"""The ranges of the settings of kinds, by field, or by class and field."""


def paper_schema() -> Schema:
    """Return the schema of the files of ``workflow/papers``."""
    defs: dict[str, Schema] = {}
    table = _item(kinds.TABLES, "results", defs)
    figure = _item(kinds.FIGURES, "grid", defs)
    claims = define(ClaimsSpec, NARROWED, defs)
    defs["ClaimsSpec"]["properties"]["claims"]["propertyNames"] = {
        "pattern": "^[A-Z][0-9]+$"
    }
    defs |= {"table": table, "figure": figure}
    shown = {
        item: {
            "description": f"The {item}s by id, each at one scale or both.",
            "type": "object",
            "additionalProperties": _scales({"$ref": f"#/$defs/{item}"}),
        }
        for item in ("table", "figure")
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "description": "What a paper shows and claims.",
        "type": "object",
        "additionalProperties": False,
        "required": ["title", "tables", "figures"],
        "properties": {
            "title": {"description": "The paper's title.", "type": "string"},
            "tables": shown["table"],
            "figures": shown["figure"],
            "claims": {
                "description": "What the paper claims, and how that is tested.",
                **_scales(claims),
            },
        },
        "$defs": dict(sorted(defs.items())),
    }


def _scales(item: Schema) -> Schema:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "mini": {"description": "At mini scale.", **item},
            "paper": {"description": "At paper scale.", **item},
        },
    }


def _item(package: str, usual: str, defs: dict[str, Schema]) -> Schema:
    """Return the schema of a table or figure of any kind, and add those of each."""
    names = sorted(kinds.names(package))
    chosen = []
    for name in names:
        found = define(kinds.find(package, name), NARROWED, defs)
        kind = defs[found["$ref"].rpartition("/")[2]]
        kind["properties"] |= {
            "kind": {"description": "What kind it is.", "const": name},
            "on_request": {"description": "Made by name alone.", "type": "boolean"},
        }
        named = {"properties": {"kind": {"const": name}}}
        told = {} if name == usual else {"required": ["kind"]}
        chosen.append({"if": {**told, **named}, "then": found})
    return {
        "type": "object",
        "required": ["title", "caption"],
        "properties": {
            "kind": {
                "description": f"What kind it is; {usual} if left out.",
                "anyOf": [{"enum": names}, {"type": "string", "pattern": ELSEWHERE}],
            }
        },
        "allOf": chosen,
    }
