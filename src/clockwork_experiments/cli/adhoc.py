"""A run beside another, as what has to be laid over the configuration for it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clockwork_experiments.cli.checkout import Checkout


@dataclass(frozen=True)
class Asked:
    """What a user asks for.

    Attributes:
        scale: The scale.
        backbone: The model; empty for the baseline's.
        against: The run to compare with; empty for the backbone's own.
        settings: What differs from that run, as config.yaml calls it.
        captions: How many of the baseline's captions; all if 0.
    """

    scale: str
    backbone: str
    against: str
    settings: Mapping[str, Any]
    captions: int = 0


@dataclass(frozen=True)
class Adhoc:
    """A run that is made of it.

    Attributes:
        name: Its id, which says all of it: the same wish is the same run.
        given: What to lay over the configuration.
    """

    name: str
    given: dict[str, Any]


def adhoc(asked: Asked, checkout: Checkout) -> Adhoc:
    """Return the run that is asked for.

    Raises:
        ValueError: If a name means nothing, or the run would be the baseline itself.
    """
    scale = asked.scale
    if asked.backbone:
        checkout.entry(scale, "models", asked.backbone)
    against = asked.against or asked.backbone or "sd"
    baseline = checkout.entry(scale, "runs", against)
    own = {"model": asked.backbone} if asked.backbone else {}
    if own.get("model") == baseline["model"]:
        own = {}
    settings = {**own, **asked.settings}
    if not settings:
        raise ValueError(
            f"nothing tells the run from {against!r}; give it an --adaptor and a "
            "--clock, or other --steps"
        )
    runs: dict[str, Any] = {}
    sections: dict[str, Any] = {"runs": runs}
    mark, teacher = "", against
    if asked.captions:
        name, dataset = _fewer(checkout, scale, baseline["dataset"], asked.captions)
        sections["datasets"] = {name: dataset}
        mark, teacher = f"_first{asked.captions}", f"{against}_first{asked.captions}"
        # The same run of fewer captions; whom that is compared with has all of them.
        runs[teacher] = {"like": against, "dataset": name, "teacher": None}
    words = [against, *(_word(key, value) for key, value in settings.items())]
    run = f"adhoc_{'_'.join(words)}{mark}"
    runs[run] = {"teacher": teacher, **settings}
    return Adhoc(run, {scale: sections})


def _fewer(
    checkout: Checkout, scale: str, name: str, count: int
) -> tuple[str, dict[str, Any]]:
    """Return the first captions of a data set as one of its own.

    Its Fréchet distances refer to the same images as the whole set's.
    """
    known = checkout.entry(scale, "datasets", name)
    if not 3 <= count <= known["count"]:
        raise ValueError(
            f"{count} captions are not between 3 and the {known['count']} of the data "
            f"set {name!r}"
        )
    shards = -(-count * known["shards"] // known["count"])
    reference = known.get("reference", name)
    return f"{name}_first{count}", {
        "like": name,
        "count": count,
        "shards": shards,
        "reference": reference,
    }


def _word(key: str, value: Any) -> str:
    """Return a setting as a part of an id."""
    if key in ("adaptor", "model", "scheduler"):
        return re.sub(r"[^a-z0-9]+", "_", str(value).lower()).strip("_")
    if key == "mask":
        return f"mask{value}"
    values = value if isinstance(value, list) else [value]
    return key + re.sub(r"[^a-z0-9]+", "_", "_".join(f"{each:g}" for each in values))
