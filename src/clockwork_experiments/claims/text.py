"""Verdicts for machines and for people."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from clockwork_experiments.claims.registry import METRICS, ClaimsSpec, Margin, Metric
from clockwork_experiments.claims.verdicts import (
    FAILS,
    HOLDS,
    UNDECIDED,
    Judged,
    JudgedClaim,
    Number,
)
from clockwork_experiments.report.tables.table import UNKNOWN
from clockwork_experiments.score.metrics import share_score


def to_json(spec: ClaimsSpec, judged: Mapping[str, JudgedClaim]) -> dict[str, Any]:
    """Return everything as plain data."""
    return {
        "title": spec.title,
        "margins": {name: asdict(margin) for name, margin in spec.margins.items()},
        "claims": {
            name: {
                "statement": claim.statement,
                "verdict": claim.verdict,
                "summary": summary(claim),
                **asdict(claim),
            }
            for name, claim in judged.items()
        },
        "signs": score_of_signs(judged),
        "correction": "claims hold by 95 % intervals of all parts; a part fails by "
        "the interval at 1 − 0.05 / tested; none between claims; Holm between primary "
        "parts",
    }


def score_of_signs(judged: Mapping[str, JudgedClaim]) -> dict[str, Any]:
    """Return how many printed effects have our sign, of how many, as a share."""
    agree, known = (
        sum(each) for each in zip(*(c.signs for c in judged.values()), strict=True)
    )
    found: dict[str, Any] = {"agree": agree, "printed": known}
    if known:
        share = share_score(torch.arange(known) < agree)
        found |= {"value": share.value, "low": share.low, "high": share.high}
    return found


def to_markdown(spec: ClaimsSpec, judged: Mapping[str, JudgedClaim]) -> str:
    """Return a summary, a table per claim, and the margins with their reasons."""
    verdicts = [claim.verdict for claim in judged.values()]
    tested = sum(claim.tested for claim in judged.values())
    lines = [
        f"**{spec.title}**",
        "",
        *_layers(judged),
        "",
        "| claim | the paper says | signs as printed | primary part | parts that hold, "
        "fail, are open | all parts |",
        "|:--|:--|--:|:--|--:|:--|",
    ]
    for name, claim in judged.items():
        deciding = [part.verdict for part in claim.parts if not part.ours]
        counts = [deciding.count(kind) for kind in (HOLDS, FAILS, UNDECIDED)]
        agree, known = claim.signs
        lines.append(
            f"| {name} | {claim.statement} "
            f"| {f'{agree} of {known}' if known else UNKNOWN} | **{claim.primary}** "
            f"| {', '.join(map(str, counts))} | {claim.verdict} |"
        )
    lines += ["", spec.caption, "", *_reading(tested, len(verdicts))]
    for name, claim in judged.items():
        lines += [
            "",
            f"### {name}: {claim.verdict}",
            "",
            f"The paper: {claim.statement}",
            "",
            summary(claim),
            "",
            "| part | measure | effect | needed | by seed | n | paper: of, over "
            "| verdict |",
            "|:--|:--|--:|:--|--:|--:|--:|:--|",
            *(_row(part) for part in claim.parts),
        ]
    lines += ["", "### Margins", ""]
    lines += [_margin(name, margin) for name, margin in spec.margins.items()]
    return "\n".join(lines) + "\n"


def _layers(judged: Mapping[str, JudgedClaim]) -> list[str]:
    """Return the three layers of verdicts, a line each."""
    signs, lines = score_of_signs(judged), []
    if signs["printed"]:
        lines.append(
            f"- **Signs**: {signs['agree']} of {signs['printed']} printed effects have "
            f"the printed sign here, {signs['value']:.0%} [{signs['low']:.0%}, "
            f"{signs['high']:.0%}]."
        )
    count = len(judged)
    primary = [claim.primary for claim in judged.values()]
    every = [claim.verdict for claim in judged.values()]
    return [
        *lines,
        f"- **Primary parts**: of {count} claims {_tally(primary)}.",
        f"- **All parts**: of {count} claims {_tally(every)}.",
    ]


def _reading(tested: int, claims: int) -> list[str]:
    return [
        "Effects are gains: positive where the first run is better. Brackets: 95 % "
        "interval; captions are resampled, with all their sampling seeds, and in "
        "editing sources, with all their target prompts, and in translation pairs. By "
        "seed: the effect of each sampling seed alone; a Fréchet distance of fewer "
        "images is larger, so compare these with each other only. A margin with an "
        "interval is measured, and its uncertainty counts in the verdict.",
        "",
        "A claim's first part, by its first metric, is its primary one. What these "
        f"say is corrected by Holm's method among the {claims} claims. A sign is that "
        "of an effect that the paper prints; its interval takes effects as "
        "independent, which those of one run are not.",
        "",
        "A part holds by its 95 % interval; a claim holds if all its parts do, which "
        "needs no correction. A part fails by the wider interval at 1 − 0.05 / k for "
        "the k tested parts of its claim, since one failed part fails the claim. "
        f"Between the {claims} claims ({tested} tested parts) nothing is corrected. "
        "Parts marked *ours* go beyond the paper and have no part in the verdict.",
    ]


def _tally(verdicts: Sequence[str]) -> str:
    number = {kind: list(verdicts).count(kind) for kind in (HOLDS, FAILS, UNDECIDED)}
    fails = "does not" if number[FAILS] == 1 else "do not"
    holds = "holds" if number[HOLDS] == 1 else "hold"
    open_ = "is" if number[UNDECIDED] == 1 else "are"
    return (
        f"{number[HOLDS]} {holds}, {number[FAILS]} {fails} hold and "
        f"{number[UNDECIDED]} {open_} undecided"
    )


def summary(claim: JudgedClaim) -> str:
    """Return a claim's verdict as a sentence with the numbers that decide it."""
    deciding = [part for part in claim.parts if not part.ours]
    count = len(deciding)
    if claim.verdict == HOLDS:
        closest = min(deciding, key=_room)
        return f"Holds in all of {count} parts; the closest is {_sentence(closest)}."
    shown = [part for part in deciding if part.verdict == claim.verdict]
    listed = "; ".join(map(_sentence, shown))
    if claim.verdict == FAILS:
        return f"Does not hold in {len(shown)} of {count} parts: {listed}."
    return f"Undecided: no part fails, but {len(shown)} of {count} are open: {listed}."


def _room(part: Judged) -> float:
    """Return how far a part is from being open, in half-widths of its interval."""
    return min(
        (each.value / max(each.value - each.low, 1e-12) for each in part.contrasts),
        default=math.inf,
    )


def _sentence(part: Judged) -> str:
    metric = METRICS[part.metric]
    return (
        f"“{part.label}”, {metric.label} {_number(metric, part.effect)}, where "
        f"{_needed(part)} is needed"
    )


def _row(part: Judged) -> str:
    metric = METRICS[part.metric]
    seeds, n = UNKNOWN, str(part.n) if part.n else UNKNOWN
    if len(part.by_seed) > 1:
        seeds = ", ".join(_digits(metric, value, True) for value in part.by_seed)
        n = f"{part.n} × {len(part.by_seed)}"
    printed = UNKNOWN
    if part.printed is not None:
        printed = ", ".join(f"{value:g}" for value in part.printed)
    verdict = part.verdict + (f" ({part.note})" if part.note else "")
    cells = [
        part.label + (" (ours)" if part.ours else ""),
        metric.label,
        _number(metric, part.effect),
        _needed(part),
        seeds,
        n,
        printed,
        verdict,
    ]
    return f"| {' | '.join(cells)} |"


def _needed(part: Judged) -> str:
    metric = METRICS[part.metric]
    if part.test == "counted":
        if part.at_most is None:
            return f"at least {_plain(metric, part.margin.value, signed=False)}"
        low = _plain(metric, part.margin.value, signed=False)
        return f"{low} to {_plain(metric, part.at_most, signed=False)}"
    if part.test == "equivalent":
        return f"within ±{_number(metric, part.margin, signed=False)}"
    margin = _minus(part.margin) if part.test == "no_worse" else part.margin
    return f"above {_number(metric, margin, signed=False)}"


def _minus(number: Number) -> Number:
    if number.low is None or number.high is None:
        return Number(-number.value)
    return Number(-number.value, -number.high, -number.low)


def _number(metric: Metric, number: Number, *, signed: bool = True) -> str:
    value, low, high = (
        None if each is None else _digits(metric, each, signed)
        for each in (number.value, number.low, number.high)
    )
    interval = "" if low is None else f" [{low}, {high}]"
    return f"{value}{interval}{metric.unit}"


def _plain(metric: Metric, value: float, *, signed: bool = True) -> str:
    return _digits(metric, value, signed) + metric.unit


def _digits(metric: Metric, value: float, signed: bool) -> str:
    text = f"{value * metric.factor:{'+' if signed else ''}.{metric.digits}f}"
    return text.replace("-", "−")


def _margin(name: str, margin: Margin) -> str:
    what = ""
    if margin.worse:
        what = f" ({margin.share:g} of the loss of `{margin.worse}` against "
        what += f"`{margin.better}`)"
    elif margin.shares:
        listed = ", ".join(
            f"{METRICS[n].label} {x:g}" for n, x in margin.shares.items()
        )
        what = f" (of the score of `{margin.better}`: {listed})"
    elif margin.share:
        what = f" ({margin.share:g} of the score of `{margin.better}`)"
    return f"- **{name}**{what}: {margin.why}"
