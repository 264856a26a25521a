"""What a cluster needs of the workflow, with no cluster at hand."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from checkout import ROOT, copy_checkout, edit_yaml, environment, snakemake

LINKED = ("resources/mini", "src", "workflow")
PROFILE = ("--profile", "profiles/slurm")
TABLE = "results/paper/tables/clockwork/table_1.csv"


@pytest.fixture
def checkout(tmp_path) -> Path:
    return copy_checkout(tmp_path, linked=LINKED)


def fill_in(checkout: Path) -> None:
    """Give the profile an account and partitions."""
    folder = checkout / "profiles/slurm"
    path = folder / "config.yaml"
    path.write_text(path.read_text("utf-8").replace("YOUR_ACCOUNT", "lab"), "utf-8")
    path = folder / "partitions.yaml"
    path.write_text(path.read_text("utf-8").replace("YOUR_", "my_"), "utf-8")


def planned(output: str, rule: str) -> dict[str, str]:
    """Return the resources of a job of a rule in a dry run."""
    block = re.search(rf"^rule {rule}:\n(?:    .*\n)*", output, re.M)
    assert block, output[-3000:]
    (line,) = re.findall(r"resources: (.*)", block[0])
    return dict(each.split("=", 1) for each in line.split(", "))


def test_profile_that_is_not_filled_in_says_so(checkout):
    done = snakemake(checkout, *PROFILE, "--dry-run", TABLE)
    assert done.returncode == 1
    assert (
        "profiles/slurm/config.yaml: slurm_account is still YOUR_ACCOUNT; fill in "
        "yours, or remove it where the cluster has no accounts" in done.stdout
    )


def test_partitions_that_are_not_filled_in_are_named(checkout):
    path = checkout / "profiles/slurm/config.yaml"
    path.write_text(path.read_text("utf-8").replace("YOUR_ACCOUNT", "lab"), "utf-8")
    done = snakemake(checkout, *PROFILE, TABLE)
    assert done.returncode == 1
    assert (
        "profiles/slurm/partitions.yaml: YOUR_CPU_PARTITION, YOUR_GPU_PARTITION is a "
        "placeholder; `sinfo` lists your partitions" in done.stdout
    )
    assert not (checkout / "results").exists()


@pytest.mark.skipif(bool(shutil.which("sbatch")), reason="there is a Slurm here")
def test_machine_without_slurm_says_so(checkout):
    fill_in(checkout)
    done = snakemake(checkout, *PROFILE, TABLE)
    assert done.returncode == 1
    assert "there is no sbatch here; start on a login node" in done.stdout


def test_jobs_of_the_profile_ask_for_what_rules_declare(checkout):
    fill_in(checkout)
    edit_yaml(checkout / "config.yaml", "mini.adaptors.sd_resnet.gpus", 4)
    target = "results/mini/adaptors/sd_resnet/config.json"
    done = snakemake(checkout, *PROFILE, "--dry-run", "--printshellcmds", target)
    assert done.returncode == 0, done.stdout
    training = planned(done.stdout, "train_adaptor")
    assert training["gpu"] == "4"
    assert training["nodes"] == "1"
    assert training["slurm_account"] == "lab"
    assert (training["mem_mb"], training["runtime"]) == ("4000", "1440")
    assert "--signal=TERM@" in training["slurm_extra"]
    assert "gpu_model" not in training
    assert "--num_processes 4 --num_machines 1 --main_process_port 0" in done.stdout
    assert planned(done.stdout, "sample_trajectories")["gpu"] == "1"


def test_limits_and_gpu_model_hold_for_every_job(checkout):
    fill_in(checkout)
    settings = ("gpu_model=a100", "max_runtime=600", "max_mem_mb=3000")
    target = "results/mini/adaptors/sd_resnet/config.json"
    done = snakemake(checkout, *PROFILE, "--dry-run", target, "--config", *settings)
    assert done.returncode == 0, done.stdout
    training = planned(done.stdout, "train_adaptor")
    assert training["gpu_model"] == "a100"
    assert (training["mem_mb"], training["runtime"]) == ("3000", "600")
    assert planned(done.stdout, "sample_trajectories")["runtime"] == "240"


@pytest.mark.parametrize(
    ("setting", "message"),
    [("max_runtime=0", "max_runtime"), ("gpu_model=a b", "gpu_model")],
)
def test_wrong_limit_is_named(checkout, setting, message):
    done = snakemake(checkout, "--dry-run", TABLE, "--config", setting)
    assert done.returncode == 1
    assert f"config.yaml: {message}" in done.stdout


def test_every_gpu_job_may_name_a_model_and_every_job_grows():
    for path in sorted((ROOT / "workflow/rules").glob("*.smk")):
        text = path.read_text("utf-8")
        assert not re.findall(r"(?:mem_mb|runtime)=\d", text), path
        gpus = re.findall(r" gpu=[\w.]+,", text)
        assert len(gpus) == text.count("gpu_model=gpu_model"), path
        assert text.count("mem_mb=memory(") == text.count("runtime=walltime("), path


# --- a login node, which has no torch ------------------------------------------------


@pytest.fixture
def login_node(checkout, monkeypatch) -> Path:
    """Return a copy in which every import of torch fails."""
    stub = checkout / "stub/torch"
    stub.mkdir(parents=True)
    (stub / "__init__.py").write_text('raise ImportError("no torch here")\n')
    ours = environment(checkout)
    ours["PYTHONPATH"] = f"{stub.parent}:{ours['PYTHONPATH']}"
    monkeypatch.setattr("checkout.environment", lambda folder: ours)
    import_torch = [sys.executable, "-c", "import torch"]
    assert subprocess.run(import_torch, env=ours, capture_output=True).returncode == 1
    return checkout


def test_workflow_is_planned_without_torch(login_node):
    for targets in ((), ("results/mini/claims/clockwork.md", TABLE)):
        done = snakemake(login_node, "--dry-run", *targets)
        assert done.returncode == 0, done.stdout[-3000:]


def test_jobs_of_the_login_node_run_without_torch(login_node):
    rules = (ROOT / "workflow/rules").glob("*.smk")
    local = {
        name
        for path in rules
        for block in re.findall(
            r"^localrules:\n((?:    \w+,\n)+)", path.read_text(), re.M
        )
        for name in re.findall(r"\w+", block)
    }
    assert {"prepare_prompts", "set_table", "draw_figure"} <= local
    targets = (
        "results/mini/prompts/test.json",
        "results/paper/tables/clockwork/table_s4.csv",
        "results/paper/figures/clockwork/figure_3.png",
    )
    done = snakemake(login_node, "--cores", "1", *targets)
    assert done.returncode == 0, done.stdout[-3000:]
    for target in targets:
        assert (login_node / target).stat().st_size > 100, target


def test_environment_of_the_profile_is_complete():
    """The profile names no rule that there is not."""
    profile = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text("utf-8"))
    rules = "".join(p.read_text() for p in (ROOT / "workflow/rules").glob("*.smk"))
    for each in profile["groups"]:
        rule, group = each.split("=")
        assert f"rule {rule}:" in rules
        assert f"{group}=" in profile["group-components"][0]
    assert not set(profile["default-resources"]) - {
        *("slurm_account", "nodes", "cpus_per_gpu", "runtime", "mem_mb", "slurm_extra")
    }
