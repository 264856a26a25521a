import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from checkout import ROOT, copy_checkout, environment, jobs

from clockwork_experiments.cli import app, checkout, doctor, facts, sources, workflow
from clockwork_experiments.cli.adhoc import Asked, adhoc

COMMANDS = (
    *("run", "train", "hub", "plan", "table", "figure", "claims", "mini", "pilot"),
    *("report", "fetch", "doctor"),
)


class FakeProcess:
    """Stands for Snakemake: keeps what it was asked for, and ends as it is told."""

    code = 0
    asked: list[tuple[list[str], Path]] = []

    def __init__(self, command, cwd, env, stdout):
        self.asked.append((command, Path(cwd)))
        assert Path(sys.executable).parent == Path(env["PATH"].split(os.pathsep)[0])

    def wait(self):
        return self.code


@pytest.fixture
def snakemake(monkeypatch):
    """Return a stand-in for Snakemake, which makes nothing."""
    monkeypatch.setattr(FakeProcess, "asked", [])
    monkeypatch.setattr(workflow.subprocess, "Popen", FakeProcess)
    monkeypatch.setattr(workflow, "_release_lock", lambda root: None)
    monkeypatch.setattr(workflow.signal, "signal", lambda *_: None)
    return FakeProcess


@pytest.fixture
def repo(tmp_path):
    return copy_checkout(
        tmp_path / "repo", linked=("profiles", "resources/mini", "src")
    )


def call(monkeypatch, *words):
    """Return the exit code of a command line."""
    monkeypatch.setattr(sys, "argv", ["clockwork", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        app.main()
    return ended.value.code


def targets(asked):
    command, _ = asked
    return command[command.index("--") + 1 :]


# --- what people see --------------------------------------------------------------


def test_help_comes_soon_and_imports_nothing_heavy():
    code = (
        "import sys; from clockwork_experiments.cli import app\n"
        "heavy = {'torch', 'pandas', 'matplotlib', 'snakemake', 'diffusers',"
        " 'transformers', 'huggingface_hub', 'requests'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ
    )
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)])
def test_the_help_lists_every_command_uncut(monkeypatch, capsys, words):
    assert call(monkeypatch, *words) == 0
    shown = capsys.readouterr().out
    listed = re.findall(r"^  (\w+) +(\S.*)$", shown.split("Commands:")[1], re.M)
    assert tuple(name for name, _ in listed) == COMMANDS
    assert not [said for _, said in listed if said.endswith("...")]


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_one_example_that_it_takes(
    monkeypatch, capsys, snakemake, name
):
    assert call(monkeypatch, name, "--help") == 0
    shown = capsys.readouterr().out
    (example,) = re.findall(r"Example: clockwork (.*?)\n\n", shown, re.S)
    words = example.split()
    assert words[0] == name
    if name in ("doctor", "plan"):
        return  # they are no targets of the workflow
    monkeypatch.chdir(ROOT)
    dry = ["--dry-run"] if "--dry-run" in shown else []
    if name == "report":
        monkeypatch.setattr(workflow.Workflow, "tell", lambda *_: None)
    assert call(monkeypatch, *words, *dry) == 0
    ((_, folder),) = snakemake.asked
    assert folder == ROOT


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("tabel",), "No such command 'tabel'. Did you mean 'table'?"),
        (("table", "--scael", "mini"), "--scale"),
        (("table", "tabl_1"), "did you mean 'table_1'?"),
        (("table", "clockwork/table_4"), "did you mean 'clockwork/table_"),
        (("table", "table_s1"), "say clockwork/table_s1 or compression/table_s1"),
        (("table",), "say which of the tables; --list lists them"),
        (("table", "table_1", "--scale", "huge"), "'huge' is not one of"),
        (("figure", "figure_11"), "did you mean 'figure_s11'?"),
        (("claims", "clock"), "did you mean 'clockwork'?"),
        (("train", "sd_resnett"), "did you mean 'sd_resnet'?"),
        (("train", "identity"), "'identity' has no weights"),
        (("fetch", "coco"), "did you mean 'coco2017'?"),
        (("run",), "nothing tells the run from 'sd'"),
        (("run", "--backbone", "sd"), "nothing tells the run from 'sd'"),
        (("run", "--backbone", "sdd", "--steps", "3"), "did you mean 'sd'?"),
        (("run", "--against", "sd_clokwork", "--steps", "3"), "'sd_clockwork'?"),
        (("run", "--adaptor", "identiti", "--clock", "2"), "mean 'identity'?"),
        (("run", "--adaptor", "identity"), "needs both a clock above 1 and"),
        (("run", "--clock", "0"), "--clock': Input should be"),
        (("run", "--steps", "3.5"), "--steps': Input should be a valid integer"),
        (("run", "--scheduler", "dpmm", "--steps", "3"), "'dpmm' does not match"),
        (("run", "--guidance", "nan"), "not a finite number"),
        (("run", "--adaptor-steps", "3;4"), "no list of whole numbers"),
        (("run", "--steps", "3", "--captions", "2"), "not between 3 and the 48"),
        (("run", "--steps", "3", "--captions", "49"), "not between 3 and the 48"),
        (
            ("run", "--backbone=efficient", "--adaptor=sd_resnet", "--clock=2"),
            "must have the same model",
        ),
        (("doctor", "--configfile", "none.yaml"), "none.yaml does not exist"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    monkeypatch, capsys, snakemake, repo, words, said
):
    monkeypatch.chdir(repo)
    before = sorted(repo.rglob("*"))
    assert call(monkeypatch, *words) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ") and shown.err.count("\n") == 1
    assert said in shown.err
    assert not snakemake.asked
    assert sorted(repo.rglob("*")) == before


def test_lists_say_what_there_is(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    for words, one in (
        (("table",), "clockwork/table_1 "),
        (("table", "--scale", "paper"), "Table 1 at paper scale"),
        (("figure",), "compression/joint_pareto "),
        (("train",), "sd_resnet\n"),
        (("fetch",), "coco2017_pairs "),
    ):
        assert call(monkeypatch, *words, "--list") == 0
        assert one in capsys.readouterr().out, words


# --- what becomes of it -----------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("table", "table_1"), ["results/mini/tables/clockwork/table_1.md"]),
        (
            ("table", "compression/table_s1", "joint", "--scale", "mini"),
            [
                "results/mini/tables/compression/table_s1.md",
                "results/mini/tables/compression/joint.md",
            ],
        ),
        (
            ("figure", "figure_s12", "--scale", "paper"),
            ["results/paper/figures/clockwork/figure_s12.png"],
        ),
        (
            ("claims",),
            ["results/mini/claims/clockwork.md", "results/mini/claims/compression.md"],
        ),
        (
            ("train", "sd_resnet"),
            ["results/mini/adaptors/sd_resnet/diffusion_pytorch_model.safetensors"],
        ),
        (("fetch",), ["fetched"]),
        (
            ("fetch", "clip", "coco2017"),
            [f"resources/paper/manifests/{name}.json" for name in ("clip", "coco2017")],
        ),
        (("mini",), []),
        (
            ("run", "--steps", "6"),
            ["results/mini/compared/adhoc_sd_steps6.md"],
        ),
    ],
)
def test_each_command_makes_targets_of_the_workflow(
    monkeypatch, snakemake, words, wanted
):
    monkeypatch.chdir(ROOT)
    assert call(monkeypatch, *words, "--dry-run") == 0
    ((command, _),) = snakemake.asked
    assert targets((command, _)) == wanted
    assert "--dry-run" in command


def test_options_reach_the_workflow(monkeypatch, snakemake, tmp_path):
    (tmp_path / "more.yaml").write_text("mini: {runs: {mine: {steps: 3}}}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CORES", raising=False)
    words = ["table", "table_1", "-C", ROOT, "-j", 3, "--configfile", "more.yaml"]
    more = ["--profile", "profiles/slurm", "--snakemake", "--forcerun set_table"]
    assert call(monkeypatch, *words, *more, "-n") == 0
    ((command, folder),) = snakemake.asked
    assert folder == ROOT
    text = " ".join(command)
    assert "--cores 3" in text and f"--configfile {tmp_path}/more.yaml" in text
    assert "--profile profiles/slurm" in text
    assert "--forcerun set_table -- results" in text
    # Cores that nobody asked for would limit a whole cluster.
    assert call(monkeypatch, *words[:4], *more[:2], "-n") == 0
    assert "--cores" not in snakemake.asked[1][0]
    assert call(monkeypatch, *words[:4], "-n") == 0
    assert "--cores 2" in " ".join(snakemake.asked[2][0])
    # What a file adds is known.
    run = ["run", "--against=mine", "--steps=5"]
    assert call(monkeypatch, *run, *words[2:], "-n") == 0
    assert targets(snakemake.asked[3]) == ["results/mini/compared/adhoc_mine_steps5.md"]


def test_the_exit_code_of_the_workflow_is_passed_on(monkeypatch, capsys, snakemake):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(snakemake, "code", 7)
    assert call(monkeypatch, "table", "table_1") == 7
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "exit code 7" in shown.err
    monkeypatch.setattr(snakemake, "code", -9)
    assert call(monkeypatch, "table", "table_1") == 137


def test_a_table_is_printed_with_its_path_and_a_figure_by_its_path(
    monkeypatch, capsys, snakemake, repo
):
    table = repo / "results/mini/tables/clockwork/table_1.md"
    table.parent.mkdir(parents=True)
    table.write_text("| a |\n", encoding="utf-8")
    monkeypatch.chdir(repo)
    assert call(monkeypatch, "table", "table_1") == 0
    assert capsys.readouterr().out == f"| a |\n\n{table.relative_to(repo)}\n"
    (repo / "docs").mkdir(exist_ok=True)
    monkeypatch.chdir(repo / "docs")
    assert call(monkeypatch, "figure", "figure_1") == 0
    path = repo / "results/mini/figures/clockwork/figure_1.png"
    assert capsys.readouterr().out == f"{path}\n"


# --- where ------------------------------------------------------------------------


def test_the_checkout_is_found_from_below_and_from_elsewhere(
    monkeypatch, capsys, tmp_path
):
    assert checkout.find(None, ROOT / "workflow" / "rules") == ROOT
    assert checkout.find(ROOT, tmp_path) == ROOT
    monkeypatch.chdir(tmp_path)
    for words in (("table", "table_1"), ("run", "--steps", "3"), ("report",)):
        assert call(monkeypatch, *words) == 2
        said = capsys.readouterr().err
        assert f"neither {tmp_path} nor one above it is a checkout" in said
        assert "--directory" in said and said.count("\n") == 1
    # A named folder is meant as it is.
    assert call(monkeypatch, "table", "table_1", "-C", ROOT / "workflow") == 2
    assert f"{ROOT}/workflow is no checkout" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# --- ad-hoc runs ------------------------------------------------------------------


@pytest.fixture(scope="module")
def here():
    return checkout.Checkout(ROOT)


def resolved(here, made, scale):
    whole = checkout.Checkout(ROOT, given=made.given)
    whole.check()
    return whole.entries(scale, "runs")[made.name], whole


def test_the_same_wish_is_the_same_run_and_another_is_not(here):
    settings = {"adaptor": "identity", "clock": 3, "steps": 6}
    made = adhoc(Asked("mini", "sd", "sd", settings), here)
    assert made.name == "adhoc_sd_identity_clock3_steps6"
    assert made == adhoc(Asked("mini", "", "", settings), here)
    run, _ = resolved(here, made, "mini")
    assert run["sampler"] == {
        **{"scheduler": "dpmpp", "steps": 6, "guidance": 2.0, "clock": 3}
    }
    assert (run["teacher"], run["dataset"]) == ("sd", "test")
    names = {
        adhoc(Asked("mini", "", "sd", one), here).name
        for one in (
            {"guidance": 2.5},
            {"guidance": 25.0},
            {"steps": 25},
            {"scheduler": "UniPCMultistepScheduler"},
            {"adaptor": "identity", "adaptor_steps": [3, 4]},
            {"adaptor": "identity", "adaptor_steps": [3, 4], "level": 9},
            {"adaptor": "identity", "mask": "10110101"},
        )
    }
    assert len(names) == 7
    assert all(re.fullmatch("[a-z][a-z0-9_]*", name) for name in names)


def test_a_mask_of_other_steps_is_refused_before_anything_runs(here):
    settings = {"adaptor": "identity", "mask": "10110101", "steps": 8}
    made = adhoc(Asked("mini", "sd", "sd", settings), here)
    run, _ = resolved(here, made, "mini")
    assert run["sampler"]["mask"] == "10110101"
    made = adhoc(Asked("mini", "sd", "sd", {**settings, "steps": 6}), here)
    with pytest.raises(ValueError, match="mask 10110101 has 8 steps, and the run 6"):
        resolved(here, made, "mini")
    made = adhoc(Asked("mini", "sd", "sd", {**settings, "mask": "01110101"}), here)
    with pytest.raises(ValueError, match="01110101"):
        resolved(here, made, "mini")


def test_fewer_captions_are_of_both_runs_and_the_reference_stays_whole(here):
    settings = {"adaptor": "identity", "clock": 2}
    # Its own teacher has all captions, and is no teacher of this one.
    made = adhoc(Asked("mini", "", "sd_steps6", settings, 12), here)
    run, whole = resolved(here, made, "mini")
    assert (run["teacher"], run["dataset"]) == ("sd_steps6_first12", "test_first12")
    assert run["sampler"]["steps"] == 6
    dataset = whole.entries("mini", "datasets")["test_first12"]
    assert (dataset["count"], dataset["reference"]) == (12, "reference")
    # At paper scale a set is its own reference, and comes in shards.
    made = adhoc(Asked("paper", "sd", "", settings, 1200), here)
    _, whole = resolved(here, made, "paper")
    dataset = whole.entries("paper", "datasets")["coco2017_first1200"]
    assert (dataset["reference"], dataset["shards"]) == ("coco2017", 3)
    made = adhoc(Asked("mini", "", "sd_clockwork", {"clock": 1, "steps": 3}, 12), here)
    _, whole = resolved(here, made, "mini")
    baseline = whole.entries("mini", "runs")["sd_clockwork_first12"]
    assert "teacher" not in baseline and baseline["adaptor"] == "sd_resnet"


def test_another_backbone_is_compared_with_its_own_guidance(here):
    made = adhoc(Asked("mini", "distilled", "sd", {"steps": 8}), here)
    run, _ = resolved(here, made, "mini")
    assert (run["model"], run["teacher"]) == ("distilled", "sd")
    assert run["sampler"]["guidance"] == 1.0


def test_a_dry_run_plans_an_ad_hoc_run_and_writes_nothing(repo):
    words = ["run", "--adaptor=identity", "--clock=3", "--captions=12", "--dry-run"]
    done = subprocess.run(
        [
            *(sys.executable, "-c"),
            "from clockwork_experiments.cli.app import main; main()",
            *words,
        ],
        cwd=repo / "workflow",
        env=environment(repo),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    planned = jobs(done.stdout)
    assert planned["sample_images"] == planned["score_images"] == 2
    assert planned["time_pair"] == planned["set_comparison"] == 1
    assert not (repo / "results").exists()


def test_what_was_laid_over_is_kept_with_the_run(monkeypatch, capsys, snakemake, repo):
    monkeypatch.chdir(repo)
    table = repo / "results/mini/compared/adhoc_sd_steps6.md"
    table.parent.mkdir(parents=True)
    table.write_text("row", encoding="utf-8")
    assert call(monkeypatch, "run", "--steps", "6") == 0
    path = repo / "results/mini/adhoc/adhoc_sd_steps6.yaml"
    kept = yaml.safe_load(path.read_text("utf-8"))
    assert kept["mini"]["runs"] == {"adhoc_sd_steps6": {"teacher": "sd", "steps": 6}}
    ((command, _),) = snakemake.asked
    assert "--configfile results/mini/adhoc/adhoc_sd_steps6.yaml" in " ".join(command)
    assert capsys.readouterr().out.startswith("row\n")


# --- doctor -----------------------------------------------------------------------

GOOD = facts.Facts(
    python="3.11.9",
    required=["diffusers>=0.38", "transformers>=5.0", "torch>=2.9", "typer"],
    installed={
        **{"diffusers": "0.42.1", "transformers": "5.23.0", "torch": "2.13.0"},
        **{"torchvision": "0.28.0", "typer": "0.29.2"},
    },
    pins={"diffusers": "0.42.1", "transformers": "5.23.0"},
    torch={
        **{"torch": "2.13.0", "cuda": "13.0", "operators": "", "mps": False},
        "gpus": [["NVIDIA A100", 80 * 10**9, [8, 0]]],
    },
    seen=["NVIDIA A100"],
    cores=8,
    memory_gb=64,
    free_gb=900,
    slurm="slurm 23.11",
)


def told(**changed):
    return {
        each.name: each for each in doctor.machine(facts.Facts(**vars(GOOD) | changed))
    }


def test_a_good_machine_is_ok_throughout():
    found = told()
    assert {each.level for each in found.values()} == {"OK"}
    assert "80 GB, float32, float16, bfloat16" in found["gpu"].said
    assert "compiled operators load" in found["torchvision"].said


@pytest.mark.parametrize(
    ("changed", "name", "level", "said", "needed"),
    [
        ({"python": "3.9.1"}, "python", "missing", "install Python 3.11", True),
        ({"required": ["snakemake>=9"]}, "packages", "missing", "snakemake>=9", True),
        ({"required": ["torch>=3"]}, "packages", "missing", "torch 2.13.0 (n", True),
        ({"required": []}, "packages", "missing", "not installed", True),
        ({"pins": {"diffusers": "0.40"}}, "versions", "warning", "with 0.40", False),
        ({"torch": {"error": "OSError: no"}}, "torch", "missing", "OSError", True),
        (
            {"torch": {**GOOD.torch, "operators": "RuntimeError: nms"}},
            *("torchvision", "warning", "0.28.0 is not built for this torch", False),
        ),
        (
            {"torch": {**GOOD.torch, "gpus": []}},
            *("gpu", "warning", "install the CUDA build of torch", False),
        ),
        (
            {"torch": {**GOOD.torch, "gpus": []}, "seen": []},
            *("gpu", "warning", "enough for mini scale; paper scale needs", False),
        ),
        (
            {"torch": {**GOOD.torch, "gpus": [["GTX", 8 * 10**9, [7, 5]]]}},
            *("gpu", "warning", "8 GB, float32, float16 (sm_75) → for paper", False),
        ),
        ({"cores": 1}, "cores", "warning", "1 core →", False),
        ({"memory_gb": 2}, "memory", "warning", "run with --cores 1", False),
        ({"free_gb": 1}, "disk", "warning", "make room", False),
        ({"free_gb": 50}, "disk", "warning", "enough for mini scale", False),
        ({"slurm": ""}, "slurm", "missing", "only a cluster needs it", False),
    ],
)
def test_what_is_wrong_is_said_with_what_to_do(changed, name, level, said, needed):
    state = told(**changed)[name]
    assert (state.level, state.needed) == (level, needed)
    assert said in state.line(10) and "\n" not in state.line(10)
    assert " → " in state.line(10)


def test_doctor_ends_with_1_if_mini_scale_cannot_run(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(doctor, "gather", lambda root: GOOD)
    assert call(monkeypatch, "doctor") == 0
    assert "Mini scale: ready." in capsys.readouterr().out
    bad = facts.Facts(**vars(GOOD) | {"torch": {"error": "ImportError: libc"}})
    monkeypatch.setattr(doctor, "gather", lambda root: bad)
    assert call(monkeypatch, "doctor") == 1
    assert "Not ready: torch." in capsys.readouterr().out


def test_doctor_says_when_there_is_no_checkout(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor, "gather", lambda root: GOOD)
    assert call(monkeypatch, "doctor") == 1
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("missing  checkout") and "--directory" in first


def test_this_machine_is_described():
    found = facts.gather(ROOT)
    assert found.python == ".".join(map(str, sys.version_info[:3]))
    assert found.installed["torch"] == found.torch["torch"]
    assert found.pins["snakemake"] == found.installed["snakemake"]
    assert any(each.startswith("snakemake>=") for each in found.required)
    assert found.cores >= 1 and found.memory_gb > 1 and found.free_gb > 0
    levels = {each.name: each.level for each in doctor.machine(found)}
    assert levels["torch"] == levels["packages"] == "OK"


def test_sources_are_found_where_they_are(monkeypatch, repo, tmp_path):
    cache = tmp_path / "cache"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    found = checkout.configured(repo, None)

    def state(name):
        return next(each for each in sources.states(found) if each.name == name)

    assert state("clip_translations").level == "missing"
    assert "huggingface.co/timm" in state("clip_translations").todo
    assert "by hand" in state("laion").todo
    assert state("astronaut").level == "OK"
    assert "made of coco2017_archives" in state("coco2017").said
    # Half in place, half in the hub's cache.
    settings = found.entry("paper", "sources", "clip_translations")
    folder = repo / settings["path"]
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text("{}")
    assert state("clip_translations").level == "warning"
    assert "1 of 2 files" in state("clip_translations").said
    hub = cache / f"models--{settings['hub'].replace('/', '--')}"
    snapshot = hub / "snapshots" / settings["revision"]
    snapshot.mkdir(parents=True)
    (snapshot / "open_clip_model.safetensors").write_bytes(b"0")
    both = state("clip_translations")
    assert both.level == "OK" and "in place, the hub's cache" in both.said
    # Once there is a manifest, what it lists is looked at.
    manifest = repo / "resources/paper/manifests/clip_translations.json"
    manifest.parent.mkdir(parents=True)
    listed = {"open_clip_config.json": {"size": 2, "sha256": "0"}}
    manifest.write_text(json.dumps({"path": settings["path"], "files": listed}))
    assert "verified" in state("clip_translations").said
    (folder / "open_clip_config.json").write_text("{  }")
    assert "has changed since it was verified" in state("clip_translations").said
    (repo / "resources/paper/coco2017").mkdir()
    assert state("coco2017").level == "OK" and "placed" in state("coco2017").said
