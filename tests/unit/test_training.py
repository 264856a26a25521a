from dataclasses import replace

import pytest
import torch
from torch import nn

from clockwork_diffusion.training import Optimisation, fit, generator_for

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

    with pytest.raises(ValueError, match="x: the loss is nan at step 5"):
        fit(module, loss_of_step, RECIPE, tmp_path / "s.pt", name="x")
    assert not (tmp_path / "s.pt").exists()


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
