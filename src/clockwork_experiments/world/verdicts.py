"""Sum up what a judge saw: shares of pictures, and one value a picture for scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from clockwork_experiments.score.metrics import Score, share_score
from clockwork_experiments.world.captions import Caption, read
from clockwork_experiments.world.judge import (
    ASKED,
    Judge,
    Seen,
    agreement,
    as_captioned,
    chance,
    look,
)

ALL = "all that it says"
SHADOWS = "shadows"
TWINS = "twins"


def shares(said: Sequence[Caption], seen: Sequence[Seen]) -> dict[str, Score]:
    """Return how often what captions say is true, and how often parts agree.

    Args:
        said: The captions, P of them.
        seen: What the judge saw in N pictures; picture i is of caption i mod P.

    Returns:
        Scores by what is asked: members of `ASKED` that a caption says, all of them
        together, shadows and twins, with chance as a note.

    Raises:
        ValueError: If there is not a whole number of pictures a caption.
    """
    verdicts = _verdicts(said, seen)
    found = {
        part: share_score(torch.tensor([v[part] for v in verdicts if part in v]))
        for part in ASKED
        if any(part in v for v in verdicts)
    }
    found[ALL] = share_score(torch.tensor([all(v.values()) for v in verdicts]))
    agreed, by_chance = agreement(seen), chance(seen)
    for name, values, pictures, luck in zip(
        (SHADOWS, TWINS),
        (agreed.shadows, agreed.twins),
        agreed.pictures,
        by_chance,
        strict=True,
    ):
        if values:
            score = share_score(torch.tensor(values), pictures)
            found[name] = Score(
                *(score.value, score.low, score.high, score.n, score.interval),
                note=f"by chance {100 * luck:.0f} %",
            )
    return found


def share_said(said: Sequence[Caption], seen: Sequence[Seen]) -> torch.Tensor:
    """Return of each picture the share of what its caption says that is true, (N,).

    Args:
        said: The captions, P of them.
        seen: What the judge saw in N pictures; picture i is of caption i mod P.
    """
    verdicts = _verdicts(said, seen)
    return torch.tensor(
        [sum(v.values()) / len(v) for v in verdicts], dtype=torch.float64
    )


def share_agreed(seen: Sequence[Seen]) -> torch.Tensor:
    """Return of each picture the share of its shadows and twins that agree, (N,).

    A picture without an object has nothing that agrees.
    """
    values = []
    for picture in seen:
        found = agreement([picture])
        both = (*found.shadows, *found.twins)
        values.append(sum(both) / len(both) if both else 0.0)
    return torch.tensor(values, dtype=torch.float64)


def judged(
    judge: Judge, prompts: Sequence[str], images: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Judge images of prompts, in percent of each image.

    Args:
        judge: The judge.
        prompts: Captions of the world, one an image; none where no caption is meant.
        images: uint8, ``(N, 3, 64, 64)``.

    Returns:
        By `score.names.SCORES`: ``as_captioned``, if there are prompts, and
        ``agreement``, each ``(N,)`` float64.

    Raises:
        ValueError: If a prompt is no caption of the world.
    """
    seen = look(judge, images)
    found = {"agreement": 100 * share_agreed(seen)}
    if prompts:
        said = [read(prompt) for prompt in prompts]
        found["as_captioned"] = 100 * share_said(said, seen)
    return found


def _verdicts(said: Sequence[Caption], seen: Sequence[Seen]) -> list[dict[str, bool]]:
    if not said or len(seen) % len(said):
        raise ValueError(f"{len(seen)} pictures are not a whole number a caption")
    return [as_captioned(said[i % len(said)], each) for i, each in enumerate(seen)]


def to_markdown(
    title: str, images: Mapping[str, Score], renderings: Mapping[str, Score]
) -> str:
    """Return shares as a table, in percent.

    Args:
        title: Its heading.
        images: Shares of generated images by what is asked.
        renderings: Shares of renderings of the captions' own scenes.
    """

    def percent(score: Score | None) -> str:
        if score is None:
            return "—"
        low, high = 100 * score.low, 100 * score.high
        return f"{100 * score.value:.1f} [{low:.1f}, {high:.1f}]"

    lines = [
        f"| {name}{f' ({score.note})' if score.note else ''} | {score.n} "
        f"| {percent(score)} | {percent(renderings.get(name))} |"
        for name, score in images.items()
    ]
    head = "| right, % | n | generated | renderings |\n|:--|--:|--:|--:|"
    note = (
        "A judge of renderings tells what it sees; intervals: 95 %. What it gets right "
        "of renderings bounds what it can credit. Shadows agree if they fall away from "
        "the light, twins if they look alike; no caption says either."
    )
    return "\n".join([f"**{title}**", "", head, *lines, "", note, ""])
