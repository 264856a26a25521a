"""Which results claims are judged by."""

import pytest

from clockwork_experiments.claims import needs
from clockwork_experiments.claims.levels import LevelCount
from clockwork_experiments.claims.registry import Claim, ClaimsSpec, Margin, Part
from clockwork_experiments.claims.timesteps import StepAnswer

CONFIG = {
    "runs": {
        "a": {"model": "sd", "dataset": "test"},
        "b": {"model": "efficient", "dataset": "test"},
        "unused": {"model": "distilled", "dataset": "test"},
    },
    "datasets": {"test": {"count": 8, "reference": "real"}, "real": {"count": 8}},
    "translations": {"t": {"set": "pairs"}},
    "perturbations": {},
}


class Known:
    base = "results/mini"
    measured = True

    def entries(self, section):
        return CONFIG[section]

    def entry(self, section, name):
        if name not in CONFIG[section]:
            raise ValueError(f"{name!r} is not one of the {section}")
        return CONFIG[section][name]

    def run(self, name):
        return {"model": CONFIG["runs"].get(name, {}).get("model", "edited")}

    def scores(self, names):
        return [f"results/mini/scores/{name}.json" for name in names]

    def shards(self, kind, dataset, names):
        return [f"results/mini/{kind}/{name}/{dataset}" for name in names]


def claims(*parts, **margin) -> ClaimsSpec:
    margins = {"m": Margin("why", **margin)}
    return ClaimsSpec("T", "C", margins, {"C1": Claim("It is so.", parts)})


def part(metric, test="greater", **changed) -> Part:
    return Part("label", test, (metric,), "m", **changed)


def test_scores_need_features_of_runs_their_captions_and_the_reference():
    spec = claims(part("clip", of="a", over=("b",)))
    told = needs.settings(spec, Known())
    assert told == {
        "runs": {
            name: {
                "model": model,
                "dataset": "test",
                "reference": "real",
                "captions": 8,
            }
            for name, model in (("a", "sd"), ("b", "efficient"))
        },
        "perturbations": {},
    }
    assert needs.needs(spec, Known()) == {
        "features": [
            *("results/mini/features/a/test", "results/mini/features/b/test"),
            *("results/mini/features/test/test", "results/mini/features/real/real"),
        ],
        "flops": ["results/mini/flops/sd.json", "results/mini/flops/efficient.json"],
    }


def test_a_margin_s_runs_are_needed_too():
    shared = claims(part("clip", of="a", over=("a",)), share=0.1, better="b")
    assert needs.runs_of(shared) == ["a", "b"]


def test_each_source_needs_its_own():
    edited = claims(part("edit_clip", of="set/x/s50", over=("set/y/s50",)))
    scores = [f"results/mini/scores/set/{n}/s50.safetensors" for n in ("x", "y")]
    found = needs.needs(edited, Known())
    assert found == {"edits": scores, "flops": ["results/mini/flops/edited.json"]}
    translated = claims(part("lpips", of="t", over=("t",)))
    assert needs.needs(translated, Known()) == {
        "translations": ["results/mini/scores/t.safetensors"],
        "pairs": ["results/mini/pairs/pairs.json"],
    }
    timed = claims(part("level_time", level=LevelCount("ip2p", 9)))
    assert needs.needs(timed, Known()) == {
        "levels": ["results/mini/levels/ip2p.json"],
        "level_latency": ["results/mini/latency/levels/ip2p.json"],
    }
    answer = StepAnswer("one", 5, "bracketed", than="two")
    steps = claims(part("gamma_ratio", steps=answer))
    assert needs.needs(steps, Known()) == {
        "step_searches": [f"results/mini/timesteps/{n}.json" for n in ("one", "two")]
    }
    waited = claims(part("latency", of="a", over=("b",)))
    assert "latency" in needs.needs(waited, Known())


def test_what_there_is_not_is_refused():
    shaken = part(
        "image_distance", perturbation="p", cells=({"layer": "x", "start": 0},)
    )
    with pytest.raises(ValueError, match="'p' is not one of the perturbations"):
        needs.needs(claims(shaken), Known())
