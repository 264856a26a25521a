"""What kinds may ask of a scale's configuration."""

import pytest

from clockwork_experiments.config.needs.papers import Known

CONFIG = {
    "measured": False,
    "mini": {
        "runs": {"a": {"model": "sd", "sampler": {"steps": 8}, "dataset": "test"}},
        "datasets": {"test": {"shards": 2}},
        "translations": {"one": {"translator": "ip2p", "steps": 8, "set": "s"}},
        "translation_sets": {"s": {}},
        "step_searches": {"one": {"translator": "ip2p", "steps": [3, 5], "clock": 2}},
        "editing": {
            "edits": {"pnp": {"inversion": "ddim", "guidance": 3.0}},
            "inversions": {"ddim": {"model": "sd"}},
            "settings": {"s50": {"inversion": 50, "generation": 25}},
        },
    },
    "paper": {},
    "random": {},
}


def test_what_decides_flops_is_told_of_each_kind_of_run():
    known = Known(CONFIG, "mini")
    assert known.run("a") == {"model": "sd", "adaptor": "", "sampler": {"steps": 8}}
    assert known.run("set/unedited/s50") == {}
    edited = known.run("pnp/s50")
    assert edited["model"] == "sd" and edited["generation"]["guidance"] == 3.0
    with pytest.raises(ValueError, match="'b' is not one of the runs"):
        known.run("b")


def test_a_search_and_a_translation_of_one_name_are_told_apart():
    known = Known(CONFIG, "mini")
    assert known.run("one") == {"translator": "ip2p", "steps": 8}
    searched = {"translator": "ip2p", "steps": [3, 5], "clock": 2}
    assert known.searched("one") == searched


def test_scores_of_each_kind_of_run_lie_in_their_own_folder():
    assert Known(CONFIG, "mini").scores(["one", "set/pnp/s50", "a"]) == [
        "results/mini/scores/a.json",
        "results/mini/scores/edits/set/s50.json",
        "results/mini/scores/translations/one.json",
    ]


def test_images_come_in_the_shards_of_their_set():
    known = Known(CONFIG, "mini")
    shards = [f"results/mini/images/a/00{index}.safetensors" for index in range(2)]
    assert known.shards("images", "test", ["a"]) == shards
    assert known.translated(["one"]) == ["results/mini/translated/one/000.safetensors"]


def test_the_paper_scale_waits_for_scores_where_the_user_wants_them():
    assert Known(CONFIG, "mini").measured
    assert not Known(CONFIG, "paper").measured
    assert Known({**CONFIG, "measured": True}, "paper").measured
    assert not Known({**CONFIG, "measured": True}, "random").measured
