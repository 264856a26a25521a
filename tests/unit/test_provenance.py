import subprocess
import sys

from clockwork_experiments.base import provenance


def names(module: str) -> set[str]:
    return {
        path.relative_to(provenance.ROOT).as_posix()
        for path in provenance.code_of(module)
    }


def test_code_follows_imports_also_those_inside_functions():
    code = names("steps.train_adaptor")
    assert {
        "clockwork_experiments/steps/train_adaptor.py",
        "clockwork_experiments/train/distillation.py",
        "clockwork_diffusion/adaptors.py",
    } <= code
    assert "clockwork_experiments/cost/flops.py" not in code


def test_trajectories_do_not_depend_on_adaptors():
    """Else an edited adaptor would unroll the teacher again."""
    assert "clockwork_diffusion/adaptors.py" not in names("steps.sample_trajectories")


def test_tables_and_figures_do_not_depend_on_the_models():
    for step in ("set_table", "draw_figure"):
        used = names(f"steps.{step}")
        for module in ("unet", "passes", "adaptors"):
            assert f"clockwork_diffusion/{module}.py" not in used


def test_every_import_of_the_package_is_seen():
    """What Python really loads is what `code_of` says."""
    program = (
        "import sys, clockwork_experiments.steps.set_table\n"
        "print(*[m.__file__ for n, m in sys.modules.items()"
        " if n.startswith('clockwork_')], sep='\\n')"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    known = {str(path) for path in provenance.code_of("steps.set_table")}
    loaded = [p for p in loaded if not p.endswith(("__init__.py", "_torchvision.py"))]
    assert set(loaded) <= known


def test_light_steps_do_not_import_torch():
    program = (
        "import sys, clockwork_experiments.steps.set_table,"
        " clockwork_experiments.steps.draw_figure,"
        " clockwork_experiments.base.provenance\n"
        "print('torch' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"
