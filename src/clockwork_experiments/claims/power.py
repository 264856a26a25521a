"""What a study can see: the smallest effects that its numbers of units tell.

The spread is that of a quick run; its standard error falls with the root of the number
of captions, sources or pairs. Nothing here looks at where the quick run's effects lie.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from clockwork_experiments.claims.registry import METRICS, ClaimsSpec, Part, edit_set_of
from clockwork_experiments.report.kinds import Known
from clockwork_experiments.report.tables.table import UNKNOWN

POWER, ERROR = 0.8, 0.025
"""The chance to see what is there; one-sided, that of seeing what is not."""


@dataclass(frozen=True)
class Planned:
    """A claim's primary part, at the study's size.

    Attributes:
        label: What is compared.
        metric: The metric.
        test: The test.
        unit: What is counted.
        quick: Number of units of the quick run.
        n: That of the study.
        error: Standard error of the contrast at the study's size.
        smallest: Without a correction between claims: how far the effect must lie
            beyond what the test needs to be seen with a chance of 80 %; of an
            equivalence, how wide the margin must be for no effect to be seen as none.
        corrected: The same where Holm's correction is hardest.
        margin: The margin that was measured or given.
        enough: Of an equivalence, whether the margin is as wide.
    """

    label: str
    metric: str
    test: str
    unit: str
    quick: int
    n: int
    error: float
    smallest: float
    corrected: float
    margin: float
    enough: bool | None


def units(part: Part, known: Known) -> int:
    """Return how many captions, sources or pairs a part is about; 0 if it has none."""
    source = METRICS[part.metrics[0]].source
    if source in ("features", "images"):
        dataset = known.entry("runs", part.of)["dataset"]
        return int(known.entry("datasets", dataset)["count"])
    if source == "edits":
        return int(known.entry("edit_sets", edit_set_of(part.of))["count"])
    if source == "translations":
        chosen = known.entry("translations", part.of)["set"]
        return int(known.entry("translation_sets", chosen)["count"])
    if source == "perturbations":
        dataset = known.entry("perturbations", part.perturbation)["dataset"]
        return int(known.entry("datasets", dataset)["count"])
    if part.steps is not None and source in ("steps", "gammas"):
        chosen = known.entry("step_searches", part.steps.search).get("heldout")
        return int(known.entry("translation_sets", chosen)["count"]) if chosen else 0
    if part.multi is not None and source == "searches":
        chosen = known.entry("depth_searches", part.multi.search)["heldout"]
        return int(known.entry("translation_sets", chosen)["count"])
    return 0


def planned(
    spec: ClaimsSpec, judged: Mapping[str, Any], counts: Mapping[str, tuple[int, int]]
) -> dict[str, Planned]:
    """Return what a study can see of each claim's primary part, where chance counts.

    Args:
        spec: The claims.
        judged: A quick run's, as `text.to_json` writes them.
        counts: By claim, `units` of the quick run and of the study.
    """
    found = {}
    for name in spec.claims:
        part = judged["claims"][name]["parts"][0]
        quick, count = counts[name]
        if not part["contrasts"] or not count or not quick or part["n"] < 2:
            continue
        low = min(each["value"] - each["low"] for each in part["contrasts"])
        error = low / NormalDist().inv_cdf(1 - ERROR) * math.sqrt(quick / count)
        if not error > 0:
            continue
        both = part["test"] == "equivalent"
        # Both sides must be seen at once of an effect that is none.
        power = NormalDist().inv_cdf((1 + POWER) / 2 if both else POWER)
        smallest, corrected = (
            (NormalDist().inv_cdf(1 - ERROR / among) + power) * error
            for among in (1, len(spec.claims))
        )
        margin = float(part["margin"]["value"])
        found[name] = Planned(
            **{key: part[key] for key in ("label", "metric", "test", "unit")},
            quick=quick,
            n=count,
            error=error,
            smallest=smallest,
            corrected=corrected,
            margin=margin,
            enough=margin >= smallest if both else None,
        )
    return found


def to_markdown(spec: ClaimsSpec, found: Mapping[str, Planned]) -> str:
    """Return a table of what the study can see."""
    lines = [
        f"**What the study can see: {spec.title}**",
        "",
        "Of each claim's primary part, by the spread of a quick run: the smallest "
        "effect beyond what the test needs that is seen with a chance of "
        f"{POWER:.0%}, alone and where Holm's correction is hardest. Of an equivalence "
        "it is how wide the margin must be.",
        "",
        "| claim | primary part | measure | test | n, quick | n, study | smallest "
        "effect | corrected | margin |",
        "|:--|:--|:--|:--|--:|--:|--:|--:|:--|",
    ]
    for name in spec.claims:
        if name not in found:
            part = spec.claims[name].parts[0]
            what = METRICS[part.metrics[0]].label
            empty = " | ".join([UNKNOWN] * 5)
            lines.append(f"| {name} | {part.label} | {what} | {part.test} | {empty} |")
            continue
        each = found[name]
        metric = METRICS[each.metric]
        shown = [
            f"{value * metric.factor:.{metric.digits}f}{metric.unit}"
            for value in (each.smallest, each.corrected, each.margin)
        ]
        if each.enough is not None:
            shown[2] += ", enough" if each.enough else ", too narrow"
        lines.append(
            f"| {name} | {each.label} | {metric.label} | {each.test} | {each.quick} "
            f"| {each.n} | {' | '.join(shown)} |"
        )
    return "\n".join(lines) + "\n"
