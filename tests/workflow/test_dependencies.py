"""pyproject.toml, constraints.txt and environment.yml say the same; no local traces."""

import re
import subprocess
import tomllib

import pytest
import yaml
from checkout import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PINS = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text("utf-8").split()
)
DEPENDENCIES = [
    *PROJECT["dependencies"],
    *(
        name
        for group in PROJECT["optional-dependencies"].values()
        for name in group
        if not name.startswith(PROJECT["name"])  # an extra that takes in another
    ),
]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text.split("+")[0]))


@pytest.mark.parametrize("dependency", DEPENDENCIES)
def test_each_dependency_is_pinned_within_its_bound(dependency):
    name, bound = re.sub(r"\[.*\]", "", dependency).split(">=")
    pins = {normal(name): pin for name, pin in PINS.items()}
    assert version(pins[normal(name)]) >= version(bound)


def test_torch_and_torchvision_are_pinned_together():
    assert {"torch", "torchvision"} <= set(PINS)


def test_conda_brings_python_and_leaves_the_rest_to_pip():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
    *conda, pip = environment["dependencies"]
    assert pip == {"pip": ["-c constraints.txt", "-e .[dev]"]}
    assert {re.split("[=<>]", item)[0] for item in conda} <= {"python", "pip", "make"}
    (python,) = (item for item in conda if item.startswith("python"))
    least = PROJECT["requires-python"].removeprefix(">=")
    assert version(python) >= version(least)


def test_no_trace_of_a_machine_in_tracked_files():
    # Spelled in parts, so that this file is clean too.
    traces = [f"/{name}/" for name in ("work", "root", "home", "tmp")]
    traces.append("-".join(("index", "url")))
    command = ["git", "grep", "--line-number", "-I", "--fixed-strings"]
    for trace in traces:
        command += ["-e", trace]
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 1, found.stdout + found.stderr
