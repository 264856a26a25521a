"""Experiments that are written once become the settings of each scale."""

import pytest
from checkout import ROOT

from clockwork_experiments.config import load
from clockwork_experiments.config.experiments import scale_settings

SHARED = {
    "defaults": {
        "runs": {"seed": 0, "scheduler": "dpmpp", "steps": 8},
        "adaptors": {
            **{"kind": "resnet", "cut": "stage1", "clock": 2},
            **{"scheduler": "dpmpp", "steps": 8},
            "trajectories": {"seed": 1, "batch_size": 4, "train": "a", "heldout": "b"},
        },
    },
    "runs": {
        "<model>": {"matrix": {"model": ["sd", "small"]}},
        "<teacher>_steps<steps>": {"matrix": {"teacher": ["sd"], "steps": [6, 4]}},
        "fast": {"teacher": "small", "adaptor": "identity", "clock": 3, "steps": 6},
        "faster": {"like": "fast", "steps": 3, "only": "mini"},
        "elsewhere": {"only": "paper"},
    },
    "adaptors": {"identity": {"kind": "identity", "cut": "stage1"}},
}
OWN = {
    "defaults": {"runs": {"dataset": "test", "batch_size": 64}},
    "models": {
        "sd": {"path": "sd", "guidance": 2.0},
        "small": {"path": "small", "guidance": 1.0},
    },
    "runs": {"sd_steps4": {"batch_size": 2}},
}


def settings(shared=None, own=None, given=None):
    return scale_settings(
        "mini", {**SHARED, **(shared or {})}, {**OWN, **(own or {})}, given or {}
    )


def run(**changed):
    sampler = {"scheduler": "dpmpp", "steps": 8, "guidance": 2.0}
    sampler |= changed.pop("sampler", {})
    return {
        **{"model": "sd", "dataset": "test", "seed": 0, "batch_size": 64},
        **changed,
        "sampler": sampler,
    }


def test_runs_are_laid_together():
    small = {"guidance": 1.0}
    clock = {**small, "steps": 6, "clock": 3}
    assert settings()["runs"] == {
        "sd": run(),
        "small": run(model="small", sampler=small),
        "sd_steps6": run(teacher="sd", sampler={"steps": 6}),
        "sd_steps4": run(teacher="sd", sampler={"steps": 4}, batch_size=2),
        "fast": run(model="small", teacher="small", adaptor="identity", sampler=clock),
        "faster": run(
            **{"model": "small", "teacher": "small", "adaptor": "identity"},
            sampler={**clock, "steps": 3},
        ),
    }


def test_a_model_keeps_no_guidance():
    assert settings()["models"]["sd"] == {"path": "sd"}


def test_a_run_of_another_model_has_its_guidance_and_not_its_teachers():
    shared = {"runs": {"sd": {"model": "sd"}, "x": {"teacher": "sd", "model": "small"}}}
    own = {"runs": {}}
    assert settings(shared, own)["runs"]["x"]["sampler"]["guidance"] == 1.0


def test_a_teacher_hands_down_no_savings():
    shared = {
        "runs": {
            "sd": {"model": "sd", "clock": 2, "adaptor": "identity", "level": 9},
            "x": {"teacher": "sd"},
        }
    }
    assert settings(shared, {"runs": {}})["runs"]["x"] == run(teacher="sd")


def test_what_is_given_is_laid_over_in_either_form():
    given = {
        "runs": {
            "sd": {"sampler": {"steps": 5}, "seed": 3},
            "fast": {"clock": 2, "teacher": None},
            "new": {"teacher": "sd", "steps": 2},
        },
        "models": {"sd": {"path": "mine"}},
    }
    made = settings(given=given)
    assert made["runs"]["sd"] == run(seed=3, sampler={"steps": 5})
    assert made["runs"]["fast"]["sampler"]["clock"] == 2
    assert "teacher" not in made["runs"]["fast"]
    assert made["runs"]["new"] == run(teacher="sd", sampler={"steps": 2})
    assert made["models"]["sd"]["path"] == "mine"
    # Nobody else's: a run is what its own entry says.
    assert made["runs"]["sd_steps6"]["seed"] == 0


def test_adaptors_bring_trajectories():
    adaptors = {
        "a": {"model": "sd"},
        "b": {"model": "sd", "steps": 4, "cut": "stage2", "scheduler": "ddim"},
        "c": {"model": "sd", "source": "noised"},
        "d": {"model": "sd", "source": "inverted", "trajectories": {"name": "back"}},
    }
    made = settings({"adaptors": adaptors})
    sampler = {"scheduler": "dpmpp", "steps": 8, "guidance": 2.0}
    plain = {"sampler": sampler, "cut": "stage1", "seed": 1, "batch_size": 4}
    found = made["trajectories"]
    assert found["sd_train"] == {"model": "sd", "dataset": "a", "spec": plain}
    assert found["sd_noised_train"]["spec"] == {**plain, "source": "noised"}
    assert {name: made["adaptors"]["c"][name] for name in ("train", "heldout")} == {
        "train": "sd_noised_train",
        "heldout": "sd_heldout",
    }
    assert found["back_heldout"]["spec"]["source"] == "inverted"
    assert made["adaptors"]["b"] == {
        "model": "sd",
        "train": "sd_ddim_steps4_stage2_train",
        "heldout": "sd_ddim_steps4_stage2_heldout",
        "spec": {"kind": "resnet", "cut": "stage2", "clock": 2},
    }
    assert set(found) == {
        *("sd_train", "sd_heldout", "sd_noised_train", "back_train", "back_heldout"),
        *("sd_ddim_steps4_stage2_train", "sd_ddim_steps4_stage2_heldout"),
    }


def test_trajectories_of_two_kinds_need_two_names():
    adaptors = {"a": {"model": "sd"}, "b": {"model": "sd", "source": "inverted"}}
    with pytest.raises(
        ValueError, match=r"'b' needs trajectories 'sd_train' that diff"
    ):
        settings({"adaptors": adaptors})


def replicated(**replicates):
    own = {
        "replicates": {"runs": ["taught"], "seeds": [1, 2]} | replicates,
        "adaptors": {"resnet": {"model": "sd", "optimisation": {"steps": 5}}},
        "runs": {
            "taught": {"model": "sd", "adaptor": "resnet", "clock": 2},
            "plain": {"model": "sd"},
            "identical": {"model": "sd", "adaptor": "identity", "clock": 2},
        },
    }
    return scale_settings("study", {}, own, {})


def test_replicates_are_runs_whose_adaptors_were_trained_from_other_seeds():
    found = replicated()
    run = found["runs"]["taught"]
    assert found["runs"].keys() >= {"taught_seed1", "taught_seed2"}
    assert found["runs"]["taught_seed2"] == {
        **run,
        "adaptor": "resnet_seed2",
        "replicate_of": "taught",
    }
    one, again = (found["adaptors"][n] for n in ("resnet", "resnet_seed2"))
    changed = {**one["spec"], "optimisation": {"steps": 5, "seed": 2}}
    assert again == {**one, "spec": changed}
    # Entries of a user are laid over as elsewhere.
    fewer = {"replicates": {"seeds": [3]}}
    own = {"runs": {}, "replicates": {"runs": [], "seeds": [1]}}
    assert scale_settings("study", {}, own, fewer)["replicates"]["seeds"] == [3]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"runs": ["identical"]}, "'identical' has no adaptor that is trained"),
        ({"runs": ["plain"]}, "'plain' has no adaptor that is trained"),
        ({"seeds": [0]}, "0 is the seed of 'taught' itself"),
    ],
)
def test_what_cannot_be_trained_again_is_named(changed, said):
    with pytest.raises(ValueError, match=said):
        replicated(**changed)


def test_templates_lie_beneath_what_is_like_them():
    own = {
        "training": {"net": {"optimisation": {"like": "slow", "steps": 3}}},
        "templates": {
            "fast": {"steps": 1, "lr": 0.1},
            "slow": {"like": "fast", "lr": 0.01},
        },
    }
    made = settings(own=own)
    assert made["training"]["net"]["optimisation"] == {"steps": 3, "lr": 0.01}
    assert "templates" not in made
    own["templates"]["slow"] = {"like": "fats"}
    with pytest.raises(ValueError, match="did you mean 'fast'"):
        settings(own=own)


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ({"x": {"like": "sdx"}}, r"mini.runs.x.like: 'sdx' .*\(sd, x\); did .* 'sd'"),
        ({"x": {"like": "y"}, "y": {"like": "x"}}, "mini.runs.x is like itself"),
        ({"<size>": {"matrix": {"model": ["sd"]}}}, "'size' is not one of the keys"),
        ({"x": {"matrix": {"model": ["a", "b"]}}}, "its matrix makes an id twice"),
        ({"s<a>": {"matrix": {"a": ["d"]}}}, "mini.runs.s<a> makes 'sd', which is"),
        ({"x": {"matrix": ["sd"]}}, "x.matrix must map each key to a list"),
        ({"x": {"matrix": {"model": "sd"}}}, "x.matrix must map each key to a list"),
        ({"x": None}, "mini.runs.x is empty; write {}"),
    ],
)
def test_what_cannot_be_laid_together_is_named(runs, said):
    with pytest.raises(ValueError, match=said):
        settings({"runs": {"sd": {"model": "sd"}, **runs}}, {"runs": {}})


def test_what_is_wrong_is_left_for_those_who_know():
    runs = {"sd": {"teacher": "sd"}, "x": 3, "y": {"teacher": "no", "stepz": 2}}
    made = settings({"runs": runs}, {"runs": {}})["runs"]
    assert made["x"] == 3
    assert made["y"]["stepz"] == 2
    assert made["sd"]["teacher"] == "sd"


def test_files_that_are_no_yaml_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text("runs: {sd: {")
    with pytest.raises(ValueError, match=r"config.yaml is not valid YAML: .* line 2"):
        load.read_config({}, ROOT)
    (tmp_path / "config.yaml").write_text("- runs")
    with pytest.raises(ValueError, match="config.yaml must be a mapping, not"):
        load.read_config({}, ROOT)
    (tmp_path / "config.yaml").write_text("runs: [sd]")
    with pytest.raises(ValueError, match="runs must be a mapping, not"):
        load.read_config({}, ROOT)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rums: {}", "config.yaml: top level: unknown key 'rums'; .* mean 'runs'"),
        ("runs: {sd: {stepz: 6}}", "runs.sd: unknown key 'stepz'; .* mean 'steps'"),
        ("adaptors: {a: {scheduller: x}}", "adaptors.a: .* mean 'scheduler'"),
        ("editing: {edits: {a: {tau: 1}}}", "editing.edits.a: unknown key 'tau'"),
        ("mini: {runs: {sd: {sampler: {}, stepz: 6}}}", "mini.runs.sd: unknown key"),
        ("runs: {sd: {sampler: {stepz: 6}, steps: 8}}", ""),
    ],
)
def test_a_key_is_looked_for_where_it_is_written(text, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(text)
    if said:
        with pytest.raises(ValueError, match=said):
            load.read_config({}, ROOT)
    else:  # what is nested is for those who know the resolved run
        sampler = load.read_config({}, ROOT)["mini"]["runs"]["sd"]["sampler"]
        assert sampler["stepz"] == 6


def test_numbers_of_the_random_scale_are_limited():
    random = {
        "sections": ["runs", "step_searches"],
        "at_most": {"steps": 3, "count": 2},
        "everywhere": {"step_searches": {"most": 1}},
        "runs": {"sd": {"path": "x"}},
    }
    paper = {
        "runs": {"sd": {"path": "y", "sampler": {"steps": 8}, "count": "all"}},
        "step_searches": {"a": {"steps": [2, 5, 8]}},
        "sources": {},
    }
    assert load.random_scale(random, paper) == {
        "runs": {"sd": {"path": "x", "sampler": {"steps": 3}, "count": "all"}},
        "step_searches": {"a": {"steps": [2, 3], "most": 1}},
    }
