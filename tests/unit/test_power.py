"""A study's power, held against simulated studies."""

import pytest
import torch

from clockwork_experiments.claims import power
from clockwork_experiments.claims.registry import Claim, ClaimsSpec, Margin, Part
from clockwork_experiments.claims.statistics import per_caption
from clockwork_experiments.claims.verdicts import HOLDS, contrasts, verdict_of

QUICK, STUDY = 48, 160


def spec(test: str) -> ClaimsSpec:
    part = Part("with against without", test, ("clip",), "m", "of", ("over",))
    claims = {"C1": Claim("It is better.", (part,))}
    return ClaimsSpec("Claims", "A caption.", {"m": Margin("a reason", 0.1)}, claims)


def drawn(n: int, mean: float, seed: int):
    values = torch.randn(n, generator=torch.Generator().manual_seed(seed))
    return per_caption(mean + 0.3 * values.double(), n)


def judged(test: str) -> dict:
    """A quick run of which the spread is exactly that of the studies below."""
    error = 0.3 / QUICK**0.5
    needed = [{"value": 0.0, "low": -1.959964 * error, "high": 1.0}]
    needed *= 2 if test == "equivalent" else 1
    told = {"label": "l", "metric": "clip", "test": test, "unit": "captions"}
    part = {**told, "contrasts": needed, "n": QUICK, "margin": {"value": 0.1}}
    return {"claims": {"C1": {"parts": [part]}}}


@pytest.mark.parametrize("test", ["greater", "equivalent"])
def test_the_smallest_effect_is_seen_as_often_as_said(test):
    found = power.planned(spec(test), judged(test), {"C1": (QUICK, STUDY)})["C1"]
    assert found.error == pytest.approx(0.3 / STUDY**0.5, rel=1e-4)
    assert found.corrected == found.smallest  # of one claim
    seen = 0
    for seed in range(80):
        if test == "equivalent":
            needed = contrasts(test, drawn(STUDY, 0.0, seed), found.smallest)
        else:
            needed = contrasts(test, drawn(STUDY, 0.1 + found.smallest, seed), 0.1)
        seen += verdict_of(needed) == HOLDS
    assert 0.68 < seen / 80 < 0.92
    assert found.enough is (found.smallest <= 0.1 if test == "equivalent" else None)


def test_what_has_no_chance_is_a_dash():
    told = judged("greater")
    assert power.planned(spec("greater"), told, {"C1": (0, 0)}) == {}
    (row,) = power.to_markdown(spec("greater"), {}).splitlines()[6:]
    assert row.startswith("| C1 | with against without | CLIP |")
    assert row.count("—") == 5
