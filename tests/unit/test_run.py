"""The runner: a step's command line follows from the types of its function."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from clockwork_experiments import run as runner
from clockwork_experiments.base import failures, interruption


@dataclass(frozen=True)
class Spec:
    steps: int
    names: tuple[str, ...] = ()


CALLS: list[dict[str, Any]] = []


def step(
    spec: Spec,
    images: list[Path],
    count: int = 3,
    kind: Literal["a", "b"] = "a",
    dataset_name: str | None = None,
    placed: bool = False,
    also: Sequence[Path] = (),
    reads: dict[str, Path] | None = None,
    inputs: dict[str, list[Path]] | None = None,
    runs: dict[str, Any] | None = None,
) -> None:
    """Do what a step does.

    Args:
        spec: What to do, of which
            100 % is said here.
        images: What to read.
    """
    CALLS.append(dict(locals()))


def call(*arguments: str) -> dict[str, Any]:
    parser, called = runner.options_of(step)
    called(parser.parse_args(arguments))
    return CALLS.pop()


REQUIRED = ("--spec", '{"steps": 4}', "--images", "a.png", "b.png")


def test_what_has_a_default_may_be_left_out():
    assert call(*REQUIRED) == {
        "spec": Spec(4),
        "images": [Path("a.png"), Path("b.png")],
        "count": 3,
        "kind": "a",
        "dataset_name": None,
        "placed": False,
        "also": (),
        "reads": None,
        "inputs": None,
        "runs": None,
    }


def test_each_type_is_read():
    found = call(
        *(*REQUIRED, "--count", "7", "--kind", "b", "--dataset-name", "x", "--placed"),
        *("--also", "c.json", "--reads", "vae=v/a=e", "clip=c"),
        *("--inputs", "scores=1", "scores=2", "flops=3", "--runs", '{"sd": {"n": 1}}'),
    )
    assert (found["count"], found["kind"], found["placed"]) == (7, "b", True)
    assert found["dataset_name"] == "x" and found["also"] == [Path("c.json")]
    assert found["reads"] == {"vae": Path("v/a=e"), "clip": Path("c")}
    scores = [Path("1"), Path("2")]
    assert found["inputs"] == {"scores": scores, "flops": [Path("3")]}
    assert found["runs"] == {"sd": {"n": 1}}
    assert call(*REQUIRED, "--dataset_name", "y")["dataset_name"] == "y"


def test_what_is_taken_by_place_has_no_name():
    def placed(folder: Path, /, count: int = 1) -> None:
        CALLS.append({"folder": folder, "count": count})

    parser, called = runner.options_of(placed)
    called(parser.parse_args(["--count", "2", "a/b"]))
    assert CALLS.pop() == {"folder": Path("a/b"), "count": 2}


def test_dataclasses_by_name_are_named_in_messages():
    def several(specs: dict[str, Spec]) -> None:
        CALLS.append(specs)

    parser, called = runner.options_of(several)
    called(parser.parse_args(["--specs", '{"one": {"steps": 4}}']))
    assert CALLS.pop() == {"one": Spec(4)}
    with pytest.raises(ValueError, match="unknown key 'stops' in specs.one; known are"):
        called(parser.parse_args(["--specs", '{"one": {"stops": 4}}']))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--spec", "{}"), "the following arguments are required: --images"),
        ((*REQUIRED, "--kind", "c"), "invalid choice: 'c'"),
        ((*REQUIRED, "--other", "c"), "unrecognized arguments: --other"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        call(*arguments)
    assert message in capsys.readouterr().err


def test_help_is_the_docstring_s(capsys):
    parser, _ = runner.options_of(step)
    text = " ".join(parser.format_help().split())
    assert "Do what a step does." in text
    assert "What to do, of which 100 % is said here." in text


def test_a_wrong_spec_is_one_line_that_names_it(monkeypatch, capsys):
    bad = ["step", "--spec", '{"stops": 4}', "--images", "a.png"]
    monkeypatch.setattr(sys, "argv", bad)
    # A step is a process of its own: what it sets must not reach the tests after this.
    monkeypatch.setattr(os, "environ", {**os.environ})
    monkeypatch.setattr(interruption, "leave_at_signals", lambda: None)
    with pytest.raises(SystemExit) as ended:
        runner.run(step)
    assert ended.value.code == failures.Kind.PERMANENT
    error = capsys.readouterr().err.splitlines()
    assert error == ["error: unknown key 'stops' in spec; known are steps, names"]
