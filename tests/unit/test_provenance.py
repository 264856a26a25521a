import subprocess
import sys

import pytest

from clockwork_diffusion import provenance


def names(module: str) -> set[str]:
    return {
        path.relative_to(provenance.ROOT).as_posix()
        for path in provenance.code_of(module)
    }


def test_code_follows_imports_also_those_inside_functions():
    code = names("steps.train_adaptor")
    assert {"steps/train_adaptor.py", "distillation.py", "adaptors.py"} <= code
    assert "flops.py" not in code


def test_trajectories_do_not_depend_on_adaptors():
    """Else an edited adaptor would unroll the teacher again."""
    assert "adaptors.py" not in names("steps.sample_trajectories")


def test_tables_and_figures_do_not_depend_on_the_models():
    for step in ("set_table", "draw_figure"):
        assert not names(f"steps.{step}") & {"split.py", "sampling.py", "adaptors.py"}


def test_every_import_of_the_package_is_seen():
    """What Python really loads is what `code_of` says."""
    program = (
        "import sys, clockwork_diffusion.steps.set_table\n"
        "print(*[m.__file__ for n, m in sys.modules.items()"
        " if n.startswith('clockwork_diffusion.')], sep='\\n')"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    known = {str(path) for path in provenance.code_of("steps.set_table")}
    loaded = [p for p in loaded if not p.endswith(("__init__.py", "_torchvision.py"))]
    assert set(loaded) <= known


def test_light_steps_do_not_import_torch():
    program = (
        "import sys, clockwork_diffusion.steps.set_table,"
        " clockwork_diffusion.steps.draw_figure, clockwork_diffusion.provenance\n"
        "print('torch' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"


def test_unknown_modules_are_refused():
    with pytest.raises(ValueError, match=r"no module clockwork_diffusion\.steps\.none"):
        provenance.code_of("steps.none")
