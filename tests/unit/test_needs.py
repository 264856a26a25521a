"""Which files and options an entry of the configuration needs."""

import json
import shlex
from types import SimpleNamespace

import pytest

from clockwork_experiments.config.needs import (
    editing,
    fetching,
    files,
    sampling,
    training,
    translating,
)

MINI = {
    "models": {"sd": {"path": "my models/sd"}},
    "encoders": {
        "clip": {"path": "clip", "width": 8},
        "frechet": {"path": "$(touch PWNED)", "kind": "mini"},
        "lpips": {"path": "lpips", "kind": "mini"},
    },
    "datasets": {
        "test": {"source": "folder", "path": "own", "count": 2, "shards": 2},
        "made": {"source": "folder", "path": "results/mini/made", "shards": 1},
    },
    "adaptors": {
        "resnet": {"model": "sd", "spec": {"kind": "resnet", "cut": "stage1"}},
        "identity": {"kind": "identity", "cut": "stage1"},
        "branch": {"kind": "branch", "branch": 2},
    },
    "runs": {
        "full": {"model": "sd", "dataset": "test", "seed": 0},
        "light": {
            **{"model": "sd", "dataset": "test", "seed": 1, "teacher": "full"},
            **{"adaptor": "resnet", "sampler": {"steps": 2}, "batch_size": 3},
        },
    },
    "edit_sets": {
        "all": {"source": "folder", "path": "edits", "size": 64},
        "few": {"source": "scenes", "size": 64, "edits": ["pnp"]},
    },
    "editing": {
        "settings": {"fast": {"inversion": 3, "generation": 2}},
        "inversions": {"plain": {"model": "sd", "batch_size": 1}},
        "edits": {
            "pnp": {"inversion": "plain", "batch_size": 1},
            "slow": {"inversion": "plain", "batch_size": 1, "settings": ["other"]},
        },
    },
    "translators": {
        "restorer": {"path": "restorer", "task": "restoration", "model": "sd"},
    },
    "translation_sets": {"pairs": {"path": "own pairs", "shards": 2}},
    "translations": {
        "whole": {"translator": "restorer", "set": "pairs", "steps": 4, "seed": 0},
        "cut": {
            **{"translator": "restorer", "set": "pairs", "steps": 4, "seed": 0},
            **{"teacher": "whole", "adaptor": "identity"},
            "searched": {"search": "gamma", "method": "greedy"},
        },
    },
    "step_searches": {
        "gamma": {
            **{"translator": "restorer", "set": "pairs", "reference": 9},
            "methods": {"greedy": [4]},
        }
    },
}
CONFIG = {"mini": MINI, "paper": {"sources": {"web": {"path": "fetched"}}}}


def job(**wildcards: str) -> SimpleNamespace:
    return SimpleNamespace(scale="mini", **wildcards)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(*names: str) -> None:
    for name in names:
        path = files.Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")


def told(needs: files.Needs) -> dict[str, list[str]]:
    """Return what a shell makes of the options."""
    words, found = shlex.split(files.options(needs)), {}
    for word in words:
        if word.startswith("--"):
            values = found.setdefault(word, [])
        else:
            values.append(word)
    return found


def test_options_say_the_folder_and_inputs_watch_its_files():
    write("my models/sd/unet/config.json", "my models/sd/README.md")
    needs = sampling.run_needs(CONFIG, job(run="full"))
    assert files.inputs(needs) == {
        "model": ["my models/sd/unet/config.json"],
        "prompts": ["results/mini/prompts/test.json"],
    }
    assert told(needs) == {
        "--model": ["my models/sd"],
        "--prompts": ["results/mini/prompts/test.json"],
    }


def test_a_path_is_a_word_whatever_it_holds():
    needs = translating.score_needs(CONFIG, job(translation="whole"))
    assert told(needs)["--frechet"] == ["$(touch PWNED)"]
    assert "'$(touch PWNED)'" in files.options(needs)


def test_learned_adaptors_bring_the_clip_that_pools_prompts():
    needs = sampling.run_needs(CONFIG, job(run="light"))
    assert told(needs)["--adaptor"] == ["results/mini/adaptors/resnet"]
    assert files.inputs(needs)["adaptor"] == files.adaptor_files("mini", "resnet")
    assert needs["clip"].path == "clip"
    for name in ("identity", "branch", None):
        assert files.learned_adaptor(CONFIG, "mini", name) == {}


@pytest.mark.parametrize(
    ("name", "light"),
    [
        ("resnet", {"cut": "stage1"}),
        ("identity", {"cut": "stage1", "kind": "identity"}),
        ("branch", {"branch": 2}),
        (None, {}),
    ],
)
def test_light_steps_run_weights_a_kind_or_a_branch(name, light):
    assert files.light_pass(CONFIG, "mini", name) == light


def test_models_that_rules_make_are_known_by_their_checksums():
    assert files.model_files(CONFIG, "results/mini/x") == ["results/mini/x/SHA256SUMS"]
    made = files.model_files(CONFIG, "results/random/x/net.pth")
    assert made == ["results/random/x/SHA256SUMS"]


def test_fetched_models_are_known_by_their_manifest():
    assert files.model_files(CONFIG, "fetched") == [fetching.manifest("web")]


def test_every_file_of_an_own_folder_is_watched_and_no_hidden_one():
    write("own/prompts.txt", "own/images/0.PNG", "own/.DS_Store", "own/.git/x")
    needs = training.dataset_folder(CONFIG, job(dataset="test"))
    assert files.inputs(needs) == {"folder": ["own/images/0.PNG", "own/prompts.txt"]}
    assert files.options(needs) == ""


def test_captions_do_not_follow_from_images():
    write("own/prompts.txt", "own/images/0.PNG")
    needs = training.dataset_texts(CONFIG, job(dataset="test"))
    assert files.inputs(needs) == {"folder": ["own/prompts.txt"]}


def test_of_a_folder_that_is_not_there_the_list_is_missed():
    needs = training.dataset_texts(CONFIG, job(dataset="test"))
    assert files.inputs(needs) == {"folder": ["own/prompts.txt"]}
    needs = translating.pairs_needs(CONFIG, job(translation_set="pairs"))
    assert files.inputs(needs) == {"folder": ["own pairs/pairs.jsonl"]}


def test_of_a_folder_that_a_rule_makes_its_list_is_watched():
    write("results/mini/made/images/0.png")
    needs = training.dataset_folder(CONFIG, job(dataset="made"))
    assert files.inputs(needs) == {"folder": ["results/mini/made/prompts.txt"]}


def test_own_sets_to_edit_and_to_translate_are_watched():
    write(
        "edits/set.yaml", "edits/a.png", "own pairs/pairs.jsonl", "own pairs/in/a.png"
    )
    edited = editing.edit_set_needs(CONFIG, job(edit_set="all"))
    assert files.inputs(edited) == {"own": ["edits/a.png", "edits/set.yaml"]}
    pairs = translating.pairs_needs(CONFIG, job(translation_set="pairs"))
    expected = ["own pairs/in/a.png", "own pairs/pairs.jsonl"]
    assert files.inputs(pairs) == {"folder": expected}


def test_a_run_is_scored_with_its_teacher():
    needs = sampling.score_needs(CONFIG, job(run="light"))
    images = [
        f"results/mini/images/{run}/00{shard}.safetensors"
        for run in ("light", "full")
        for shard in (0, 1)
    ]
    assert files.inputs(needs)["images"] == images
    spec = json.loads(sampling.score_spec(CONFIG, job(run="light")))
    assert spec == {"light": {"seed": 1, "seeds": 1, "teacher": "full"}}


def test_renderings_are_counted_where_they_are_of_the_same_captions():
    own = {"source": "scenes", "split": "test", "offset": 0, "count": 8}
    drawn = {**own, "seeds": 16, "redrawn": 101}

    def counted(reference: dict) -> int:
        sets = {"own": {**own, "reference": "other"}, "other": reference}
        return sampling.renderings({"mini": {"datasets": sets}}, "mini", "own")

    assert counted(drawn) == 16
    assert counted({**drawn, "offset": 8}) == counted({**drawn, "count": 9}) == 0
    assert counted({**own, "seeds": 1}) == 0


def test_captions_go_with_the_images_of_a_set_alone():
    of_set = sampling.shown_captions(CONFIG, job(images="test", shard="001"))
    assert told(of_set) == {
        "--prompts": ["results/mini/prompts/test.json"],
        "--shard": ["1"],
        "--shards": ["2"],
    }
    assert sampling.shown_captions(CONFIG, job(images="light", shard="001")) == {}


def test_edits_are_those_of_their_settings_and_sets():
    assert editing.edits_at(CONFIG, "mini", "fast", "all") == ["pnp"]
    assert editing.edits_at(CONFIG, "mini", "other", "all") == ["pnp", "slow"]
    assert editing.edits_at(CONFIG, "mini", "other", "few") == ["pnp"]


def test_translations_read_the_search_whose_time_steps_they_visit():
    needs = translating.translation_needs(CONFIG, job(translation="cut"))
    options = told(needs)
    assert options["--searched"] == ["results/mini/timesteps/gamma.json"]
    assert options["--method"] == ["greedy"]
    spec = json.loads(translating.translation_spec(CONFIG, job(translation="cut")))
    assert (spec["cut"], spec["kind"]) == ("stage1", "identity")


def test_a_translation_is_compared_with_its_teacher():
    needs = translating.score_needs(CONFIG, job(translation="cut"))
    assert told(needs)["--compared"] == [
        "results/mini/translated/whole/000.safetensors",
        "results/mini/translated/whole/001.safetensors",
    ]
    assert json.loads(translating.teachers(CONFIG, job(translation="cut"))) == {
        "cut": "whole"
    }


def test_searches_for_restoration_are_judged_by_more_networks():
    needs = translating.steps_needs(CONFIG, job(step_search="gamma"))
    assert told(needs)["--lpips-kind"] == ["mini"]
    assert told(needs)["--set"] == ["results/mini/pairs/pairs.json"]
    assert files.inputs(needs)["set"] == [*files.pair_files("mini", "pairs")]


def test_unknown_ids_are_named_with_those_that_there_are():
    with pytest.raises(ValueError, match=r"'x' is not one of the runs \(full, light\)"):
        sampling.run_spec(CONFIG, job(run="x"))
    with pytest.raises(ValueError, match=r"'x' is not one of the edits of editing"):
        editing.edit_spec(CONFIG, job(edit="x", setting="fast"))
