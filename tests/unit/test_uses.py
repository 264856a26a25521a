"""A job depends on the code that it uses, and on no other."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from clockwork_experiments.base import provenance, uses

SOURCE = provenance.ROOT
RESNET, IDENTITY = json.dumps({"kind": "resnet"}), json.dumps({"kind": "identity"})


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A copy of the source, which a test may edit."""
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(SOURCE, tmp_path / "src", ignore=ignored)
    monkeypatch.setattr(provenance, "ROOT", tmp_path / "src")
    forget()
    yield tmp_path / "src"
    forget()


def forget_kept():
    uses._kept.cache_clear()
    uses._earlier.cache_clear()


def forget():
    for each in (
        *(provenance.file_of, provenance._imports),
        *(uses._module, uses._of, uses._kept, uses._earlier),
    ):
        each.cache_clear()


def code_of_all(settings: str) -> dict[str, str]:
    forget()
    return {name: uses.code_used(f"steps.{name}", settings) for name in STEPS}


def changed(source: Path, edits: dict[str, tuple[str, str]], settings: str) -> set[str]:
    """Return the steps that an edit of modules concerns."""
    before = code_of_all(settings)
    for module, (old, new) in edits.items():
        path = source.joinpath(*module.split(".")).with_suffix(".py")
        text = path.read_text("utf-8")
        assert old in text, f"{module} has no {old!r} by now"
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
    after = code_of_all(settings)
    return {
        name.removeprefix("steps.") for name in before if before[name] != after[name]
    }


STEPS = (
    *("prepare_prompts", "sample_trajectories", "train_adaptor", "sample_images"),
    *("extract_features", "score_images", "score_edits", "translate_images"),
    *("score_translations", "set_table"),
)
ADAPTORS = "clockwork_diffusion.adaptors"
METRICS = "clockwork_experiments.score.metrics"
KIND = "KINDS: dict[str, type[ModelMixin]] = {"
MINE = 'class Mine(IdentityAdaptor):\n    """Mine."""\n\n\n'


@pytest.mark.parametrize("settings", [RESNET, IDENTITY])
def test_a_new_kind_of_adaptor_concerns_no_job(source, settings):
    new = f'{MINE}{KIND}\n    "mine": Mine,'
    assert changed(source, {ADAPTORS: (KIND, new)}, settings) == set()


def test_a_job_that_names_the_new_kind_runs_it(source):
    new = f'{MINE}{KIND}\n    "mine": Mine,'
    edits = {ADAPTORS: (KIND, new)}
    assert "train_adaptor" in changed(source, edits, json.dumps({"kind": "mine"}))


def test_a_new_name_of_a_scheduler_concerns_no_job(source):
    old = "SCHEDULERS: dict[str, type[SchedulerMixin]] = {"
    new = f'{old}\n    "unipc": UniPCMultistepScheduler,'
    edits = {"clockwork_diffusion.schedulers": (old, new)}
    settings = json.dumps({"scheduler": "ddim", "kind": "identity"})
    assert changed(source, edits, settings) == set()


def test_a_new_metric_concerns_no_job_that_scores(source):
    old = "def psnr("
    new = f"def mine(images, targets):\n    return psnr(images, targets)\n\n\n{old}"
    assert changed(source, {METRICS: (old, new)}, "") == set()


def test_an_edited_metric_concerns_those_that_measure_it(source):
    found = changed(
        source,
        {METRICS: ("def frechet_jackknife(", "@staticmethod\ndef frechet_jackknife(")},
        "",
    )
    assert {"score_images", "score_translations"} <= found
    assert not {"score_edits", "sample_images", "train_adaptor"} & found


def test_an_edited_kind_concerns_the_jobs_that_name_it(source):
    old = "class ResNetAdaptor(_LearnedAdaptor):"
    new = f"{old}\n    edited = True\n"
    found = changed(source, {ADAPTORS: (old, new)}, RESNET)
    assert {"train_adaptor", "sample_images"} <= found
    assert "prepare_prompts" not in found
    shutil.rmtree(source)
    shutil.copytree(SOURCE, source)
    assert "sample_images" not in changed(source, {ADAPTORS: (old, new)}, IDENTITY)


def test_what_was_found_holds_until_a_source_changes(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    uses.KEPT.parent.mkdir()

    def read(module, named):
        raise RuntimeError("read anew")

    found = uses.code_used("steps.score_images")
    uses._keep(uses._earlier(), uses._sources(), 0)
    for damaged in ("", "[]", "{}", '{"of": 1}', uses.KEPT.read_text("utf-8")[:-9]):
        with monkeypatch.context() as patch:
            patch.setattr(uses, "_of", read)
            forget_kept()
            assert uses.code_used("steps.score_images") == found
        whole = uses.KEPT.read_text("utf-8")
        uses.KEPT.write_text(damaged, encoding="utf-8")
        forget_kept()
        assert uses.code_used("steps.score_images") == found
        uses.KEPT.write_text(whole, encoding="utf-8")
    path = source / "clockwork_experiments/score/metrics.py"
    path.write_text(path.read_text("utf-8") + "\nADDED = 1\n", encoding="utf-8")
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="anew"):
        patch.setattr(uses, "_of", read)
        forget_kept()
        uses.code_used("steps.score_images")


def test_comments_docstrings_and_order_concern_nothing(source):
    path = source / "clockwork_experiments/score/metrics.py"
    before = code_of_all("")
    text = path.read_text("utf-8")
    text = text.replace('"""Return', '"""Give').replace(
        "\n\n\ndef ", "\n\n\n# so\ndef "
    )
    path.write_text(text, encoding="utf-8")
    assert code_of_all("") == before


@pytest.mark.parametrize(
    ("body", "concerned"),
    [
        ("return KINDS[kind]", False),
        ("return KINDS.get(kind) if kind in KINDS else ', '.join(KINDS)", False),
        ("return next(k for k, v in KINDS.items() if v.__name__ == kind)", False),
        ("return [each() for each in KINDS.values()]", True),
        ("return print(KINDS)", True),
        ("return [KINDS[each] for each in KINDS]", True),
        ("return KINDS['two']", True),
        ("return two()", True),
    ],
)
def test_of_a_registry_that_is_looked_up_only_what_is_named_counts(
    source, body, concerned
):
    package = source / "clockwork_experiments"
    kinds = "def one(): pass\ndef two(): {}\nKINDS = {'one': one, 'two': two}\n"
    (package / "kinds.py").write_text(kinds, encoding="utf-8")
    (package / "steps" / "look.py").write_text(
        "from clockwork_experiments.kinds import KINDS, two\n"
        f"def main(kind):\n    {body}\n",
        encoding="utf-8",
    )
    settings = json.dumps({"kind": "one"})
    before = uses.code_used("steps.look", settings)
    edited = kinds.replace("def two(): {}", "def two(): return 2")
    (package / "kinds.py").write_text(edited, encoding="utf-8")
    forget()
    assert (uses.code_used("steps.look", settings) != before) == concerned


def test_a_class_outside_the_packages_is_watched(tmp_path, monkeypatch):
    (tmp_path / "my_adaptor.py").write_text("class Mine: pass\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    settings = json.dumps({"kind": "my_adaptor:Mine"})
    before = uses.code_used("steps.train_adaptor", settings)
    assert before != uses.code_used("steps.train_adaptor", RESNET)
    (tmp_path / "my_adaptor.py").write_text("class Mine: x = 1\n", encoding="utf-8")
    uses._outside.cache_clear()
    assert uses.code_used("steps.train_adaptor", settings) != before


def test_unknown_modules_are_refused():
    with pytest.raises(
        ValueError, match=r"no module clockwork_experiments\.steps\.none"
    ):
        uses.code_used("steps.none")


TRACED = """
import json, sys
seen = set()
def importing(frame):
    while frame := frame.f_back:
        name = frame.f_globals["__name__"]
        if frame.f_code.co_name == "<module>" and "clockwork_" in name:
            return True
    return False
def note(frame, event, _):
    if event == "call":
        name = frame.f_globals.get("__name__", "")
        code = frame.f_code
        # Of functions alone, and not of what decorates others at import.
        if name.startswith("clockwork_") and code.co_flags & 1 and not importing(frame):
            seen.add((name, code.co_qualname.split(".")[0]))
import clockwork_experiments.steps.count_flops as step
from clockwork_experiments.config.parse import parse
from pathlib import Path
spec = parse(step.unet_counts.FlopsSpec, sys.argv[1])
sys.setprofile(note)
step.count_flops(spec, Path(sys.argv[3]), Path(sys.argv[2]))
sys.setprofile(None)
print(json.dumps(sorted(seen)))
"""


def test_whatever_a_step_calls_is_known(tmp_path):
    """The functions that really run are among those that are followed."""
    spec = json.dumps(
        {
            **{"backbone": "sd", "tokens": 4, "text_channels": 8},
            "adaptors": {"one": {"kind": "resnet", "cut": "stage1"}},
        }
    )
    unet = SOURCE.parent / "resources/mini/stable-diffusion/unet/config.json"
    done = subprocess.run(
        [sys.executable, "-c", TRACED, spec, str(unet), str(tmp_path / "out.json")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    called = {(*each,) for each in json.loads(done.stdout.splitlines()[-1])}
    called = {
        (module, name)
        for module, name in called
        if name[:1] != "<" and name[:2] != "__"
    }
    assert len(called) > 10
    known = uses.used_by("steps.count_flops", spec)
    # What the package does to a process when it is imported, of no step's doing.
    called = {place for place in called if not place[0].endswith("._torchvision")}
    assert called - known == set()
