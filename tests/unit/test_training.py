import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from clockwork_experiments.train.training import (
    Crew,
    Optimisation,
    fit,
    generator_for,
    join_crew,
)

RECIPE = Optimisation(
    steps=20, batch_size=4, lr=0.05, warmup=3, schedule="cosine", ema=0.9, clip_norm=1.0
)


class Killed(Exception):
    pass


def tiny() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))


def loss_of(module: nn.Module, killed_at: int | None = None):
    def loss_of_step(step: int) -> torch.Tensor:
        if step == killed_at:
            raise Killed
        x = torch.randn(4, 3, generator=generator_for(7, step))
        return (module(x) - x.sum(1, keepdim=True)).square().mean()

    return loss_of_step


def test_killed_and_resumed_equals_uninterrupted(tmp_path):
    left_alone = tiny()
    whole = fit(left_alone, loss_of(left_alone), RECIPE, tmp_path / "a.pt", name="a")
    state, module = tmp_path / "b.pt", tiny()
    with pytest.raises(Killed):
        fit(module, loss_of(module, 11), RECIPE, state, name="b", save_seconds=0)
    module = tiny()  # a new process knows nothing but the state
    resumed = fit(module, loss_of(module), RECIPE, state, name="b")
    for name, tensor in whole.module.state_dict().items():
        assert torch.equal(tensor, resumed.module.state_dict()[name]), name
    assert whole.history == resumed.history


def test_training_learns(tmp_path):
    module = tiny()
    before = float(loss_of(module)(1000))
    fit(module, loss_of(module), replace(RECIPE, steps=200), tmp_path / "s", name="x")
    assert float(loss_of(module)(1000)) < 0.3 * before


def test_finished_training_is_not_repeated(tmp_path):
    module = tiny()
    first = fit(module, loss_of(module), RECIPE, tmp_path / "s.pt", name="x")
    again = tiny()
    second = fit(again, loss_of(again, 0), RECIPE, tmp_path / "s.pt", name="x")
    assert torch.equal(first.module[0].weight, second.module[0].weight)


def test_corrupt_state_is_named(tmp_path):
    module, state = tiny(), tmp_path / "state.pt"
    fit(module, loss_of(module), RECIPE, state, name="x")
    state.write_bytes(state.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"state\.pt is corrupt or truncated"):
        fit(module, loss_of(module), RECIPE, state, name="x")


def test_another_recipe_is_refused(tmp_path):
    module, state = tiny(), tmp_path / "state.pt"
    fit(module, loss_of(module), RECIPE, state, name="x")
    with pytest.raises(ValueError, match=r"state\.pt is the state of another recipe"):
        fit(module, loss_of(module), replace(RECIPE, lr=0.01), state, name="x")


def test_loss_that_is_not_finite_is_named(tmp_path):
    module = tiny()

    def loss_of_step(step: int) -> torch.Tensor:
        return module(torch.ones(1, 3)).sum() * (float("nan") if step == 5 else 1.0)

    with pytest.raises(ValueError, match="x: the loss is nan at step 5") as error:
        fit(module, loss_of_step, RECIPE, tmp_path / "s.pt", name="x")
    # Out of the way of the next attempt, and there for who asks why.
    assert [path.name for path in tmp_path.iterdir()] == ["s.pt.failed"]
    assert str(error.value).endswith(f"saved last is {tmp_path / 's.pt.failed'}")
    kept = torch.load(tmp_path / "s.pt.failed", weights_only=True)
    assert kept["step"] == 4 and kept["history"][-1][0] == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps 0 is less than 1"),
        ({"schedule": "step"}, "schedule 'step' is not constant or cosine"),
        ({"optimizer": "sgd"}, "optimizer 'sgd' is not adam or adamw"),
    ],
)
def test_recipe_that_makes_no_training_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(RECIPE, **change)


# --- several processes ---------------------------------------------------------------


def test_shares_cover_everything_once():
    for length in (0, 1, 7, 8):
        shares = [Crew(rank, 3).share(length) for rank in range(3)]
        assert [item for share in shares for item in share] == list(range(length))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_process_neither_adds_nor_imports():
    value, parameter = torch.ones(2), nn.Parameter(torch.ones(2))
    parameter.grad = torch.full((2,), 3.0)
    before = parameter.grad
    Crew().add_gradients([parameter])
    assert Crew().total(value) is value
    assert parameter.grad is before
    assert join_crew() == (Crew(), None)


TOGETHER = """
import sys
from pathlib import Path

import clockwork_experiments
import torch
from diffusers import (
    DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel,
)

from clockwork_diffusion.adaptors import build_adaptor
from clockwork_experiments.train.distillation import AdaptorSpec, train_adaptor
from clockwork_diffusion.encoding import Prompts
from clockwork_diffusion.trajectories import Trajectories
from clockwork_experiments.generate.text import SamplerSpec
from clockwork_experiments.train.training import Optimisation, join_crew
from clockwork_experiments.train.trajectories import (
    FreshTrajectories, TrajectorySpec
)

torch.set_num_threads(1)
folder = Path(sys.argv[1])
crew, device = join_crew()
device = device or torch.device("cpu")
generator = torch.Generator().manual_seed(5)
random = lambda *shape: torch.randn(shape, generator=generator)
torch.manual_seed(0)
unet = UNet2DConditionModel(
    sample_size=16, block_out_channels=(16, 32, 64, 64), cross_attention_dim=24,
    attention_head_dim=2, norm_num_groups=8,
).eval()
stored = Trajectories(
    *(random(6, 4, 16, 8, 8), random(6, 4, 32, 8, 8)),
    random(4, 64).expand(6, -1, -1),
    random(6, 8),
    torch.arange(4.0),
)
text, empty, pooled = random(5, 5, 24), random(1, 5, 24), random(5, 8)

def encode(texts):
    rows = [int(each) for each in texts]
    return Prompts(text[rows], empty, pooled[rows], pooled[:1] * 0)

scheduler = DPMSolverMultistepScheduler(
    beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
)
recorded = TrajectorySpec(SamplerSpec("dpmpp", 4, 3.0), "stage1", 0, 4, "float32")
pipe = StableDiffusionPipeline(
    vae=None, text_encoder=None, tokenizer=None, unet=unet, scheduler=scheduler,
    safety_checker=None, feature_extractor=None, requires_safety_checker=False,
)
fresh = FreshTrajectories(pipe, encode, "01234", recorded, 3)
recipe = Optimisation(steps=10, batch_size=5, lr=1e-4, clip_norm=1.0, ema=0.9)
for name, data, epochs in (("stored", stored, 0), ("fresh", fresh, 2)):
    torch.manual_seed(1)
    adaptor = build_adaptor("resnet", unet, "stage1", 8)
    spec = AdaptorSpec("resnet", "stage1", 2, recipe, epochs=epochs)
    trained = train_adaptor(
        adaptor, data, spec, folder / f"{name}.pt", device, crew=crew
    )
    if not crew.rank:
        torch.save(
            {"weights": trained.module.state_dict(), "history": trained.history,
             "processes": crew.count},
            folder / f"{name}.result",
        )
"""


def test_two_processes_make_the_updates_of_one(tmp_path):
    (tmp_path / "together.py").write_text(TOGETHER)
    several = "accelerate.commands.launch --multi_gpu --num_processes 2"
    several += " --num_machines 1 --main_process_port 0"
    several += " --mixed_precision no --dynamo_backend no"
    results = {}
    for name, launcher in (("one", []), ("two", ["-m", *several.split()])):
        folder = tmp_path / name
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, *launcher, str(tmp_path / "together.py"), str(folder)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        results[name] = folder
    for kind in ("stored", "fresh"):
        one, two = (torch.load(results[name] / f"{kind}.result") for name in results)
        assert (one["processes"], two["processes"]) == (1, 2)
        for key, value in one["weights"].items():
            torch.testing.assert_close(two["weights"][key], value, rtol=0, atol=1e-5)
        for (_, loss), (_, other) in zip(one["history"], two["history"], strict=True):
            assert other == pytest.approx(loss, rel=1e-4)
