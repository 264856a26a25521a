import json
import os
import signal
import subprocess
import sys
import threading

import pytest
import torch
from test_training import RECIPE, loss_of, tiny

from clockwork_experiments.base import failures
from clockwork_experiments.base.chunks import in_chunks
from clockwork_experiments.base.interruption import noticing_sigterm
from clockwork_experiments.train.training import fit


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_is_noticed_and_then_handled_as_before():
    before = signal.getsignal(signal.SIGTERM)
    with noticing_sigterm() as terminated:
        assert not terminated()
        terminate()
        assert terminated()
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_an_inner_block_notices_the_outer_one_knows():
    with noticing_sigterm() as outer:
        with noticing_sigterm() as inner:
            terminate()
            assert inner()
        assert outer()
    with noticing_sigterm() as later:
        assert not later()


HALF_WRITTEN = """
import os, signal
from pathlib import Path
from clockwork_experiments.base import storage
from clockwork_experiments.run import run

def step() -> None:
    with storage.atomic_path(Path("made.txt")) as partial:
        partial.write_text("half")
        os.kill(os.getpid(), signal.SIGTERM)

run(step)
"""


def test_a_step_that_is_terminated_leaves_nothing_half_written(tmp_path):
    done = subprocess.run([sys.executable, "-c", HALF_WRITTEN], cwd=tmp_path)
    assert done.returncode == failures.Kind.INTERRUPTED
    assert not list(tmp_path.iterdir())


def test_training_that_is_stopped_while_it_records_keeps_its_steps(tmp_path):
    left_alone = tiny()
    whole = fit(left_alone, loss_of(left_alone), RECIPE, tmp_path / "a.pt", name="a")
    state, module = tmp_path / "b.pt", tiny()
    loss = loss_of(module)

    def recording_at_7(step: int) -> torch.Tensor:
        if step == 7:
            raise InterruptedError("epoch 1: stopped by SIGTERM after 3 of 9")
        return loss(step)

    with pytest.raises(InterruptedError, match="b: stopped by SIGTERM after 7 of 20"):
        fit(module, recording_at_7, RECIPE, state, name="b", save_seconds=1e9)
    module = tiny()
    resumed = fit(module, loss_of(module), RECIPE, state, name="b")
    assert resumed.history == whole.history


def test_thread_that_may_not_handle_signals_works_all_the_same():
    seen = []

    def work() -> None:
        with noticing_sigterm() as terminated:
            seen.append(terminated())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


def test_training_stops_at_sigterm_and_resumes_to_the_same_bits(tmp_path):
    left_alone = tiny()
    whole = fit(left_alone, loss_of(left_alone), RECIPE, tmp_path / "a.pt", name="a")
    state, module = tmp_path / "b.pt", tiny()
    loss, steps = loss_of(module), []

    def terminated_at_7(step: int) -> torch.Tensor:
        steps.append(step)
        if step == 7:
            terminate()
        return loss(step)

    with pytest.raises(InterruptedError, match="b: stopped by SIGTERM after 8 of 20"):
        fit(module, terminated_at_7, RECIPE, state, name="b", save_seconds=1e9)
    assert steps == list(range(8))  # the step at hand is finished, and kept
    module = tiny()
    loss, resumed_steps = loss_of(module), []

    def resumed_loss(step: int) -> torch.Tensor:
        resumed_steps.append(step)
        return loss(step)

    resumed = fit(module, resumed_loss, RECIPE, state, name="b")
    assert resumed_steps == list(range(8, 20))
    assert resumed.history == whole.history
    assert resumed.times == sorted(resumed.times)
    for name, tensor in whole.module.state_dict().items():
        assert torch.equal(tensor, resumed.module.state_dict()[name]), name


def test_sigterm_in_the_last_step_does_not_undo_it(tmp_path):
    module = tiny()
    loss = loss_of(module)

    def terminated_last(step: int) -> torch.Tensor:
        if step == RECIPE.steps - 1:
            terminate()
        return loss(step)

    trained = fit(module, terminated_last, RECIPE, tmp_path / "s.pt", name="x")
    assert trained.history[-1][0] == RECIPE.steps - 1


def test_chunks_stop_at_sigterm_and_go_on(tmp_path):
    done = []

    def work(rows: slice) -> dict[str, torch.Tensor]:
        done.append(rows.start)
        if done == [0, 4]:
            terminate()
        return {"x": torch.arange(rows.start, rows.stop)}

    arguments = (10, 4, work, tmp_path / "state", "work", "rows")
    with pytest.raises(InterruptedError, match="rows: stopped by SIGTERM after 8 of"):
        in_chunks(*arguments)
    assert in_chunks(*arguments)["x"].tolist() == list(range(10))
    assert done == [0, 4, 8]


CREW = """
import json, os, signal, sys
from pathlib import Path

import torch
from torch import nn

from clockwork_experiments.train import training
from clockwork_experiments.train.training import Optimisation, fit, join_crew

torch.set_num_threads(1)
folder, name, terminated_rank = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
crew, _ = join_crew()
torch.manual_seed(0)
module = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))
recipe = Optimisation(steps=20, batch_size=4, lr=0.05, clip_norm=1.0, ema=0.9)

def loss_of_step(step):
    if step == 7 and crew.rank == terminated_rank:
        os.kill(os.getpid(), signal.SIGTERM)
    x = torch.randn(4, 3, generator=training.generator_for(7, step))
    share = x[list(crew.share(4))]
    return (module(share) - share.sum(1, keepdim=True)).square().sum() / 4

try:
    trained = fit(
        module, loss_of_step, recipe, folder / f"{name}.pt", name="crew", crew=crew
    )
except InterruptedError as error:
    (folder / f"{name}.{crew.rank}.stopped").write_text(str(error))
    raise SystemExit(1)
if not crew.rank:
    weights = {k: v.tolist() for k, v in trained.module.state_dict().items()}
    (folder / f"{name}.json").write_text(
        json.dumps([crew.count, weights, trained.history])
    )
"""


def test_processes_stop_together_when_one_is_terminated(tmp_path):
    (tmp_path / "crew.py").write_text(CREW)

    def launch(name: str, terminated_rank: int) -> int:
        command = "-m accelerate.commands.launch --multi_gpu --num_processes 2"
        command += " --num_machines 1 --main_process_port 0"
        command += " --mixed_precision no --dynamo_backend no"
        return subprocess.run(
            [
                *(sys.executable, *command.split(), str(tmp_path / "crew.py")),
                *(str(tmp_path), name, str(terminated_rank)),
            ],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            timeout=300,
        ).returncode

    assert launch("alone", -1) == 0
    assert launch("killed", 1) != 0
    # The one that was not told stopped after the same step, and saved.
    assert "after 8 of 20" in (tmp_path / "killed.0.stopped").read_text()
    assert launch("killed", -1) == 0
    alone, killed = (
        json.loads((tmp_path / f"{name}.json").read_text())
        for name in ("alone", "killed")
    )
    assert alone[0] == 2
    assert killed == alone
