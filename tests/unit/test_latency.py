import random
from collections import Counter
from pathlib import Path

import pytest
import torch

from clockwork_diffusion import adaptors, passes
from clockwork_diffusion.passes import Passes
from clockwork_diffusion.unet import SplitUNet
from clockwork_experiments.base import storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.cost import latency, overhead, unet_timing
from clockwork_experiments.cost.overhead import OverheadSpec
from clockwork_experiments.cost.unet_timing import UNetTimingSpec
from clockwork_experiments.generate.text import SamplerSpec
from clockwork_experiments.steps import measure_overhead, time_sampling, time_unet
from clockwork_experiments.steps.time_sampling import TimingSpec

MODEL = "resources/mini/stable-diffusion"
GUIDED = {"scheduler": "dpmpp", "steps": 2, "guidance": 2.0}
SMALL = {
    "sample_size": 8,
    "block_out_channels": (8, 16, 16, 16),
    "cross_attention_dim": 8,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}


@pytest.fixture
def adaptor(unet):
    torch.manual_seed(0)
    made = adaptors.build_adaptor("resnet", unet, "stage1", 12)
    # Untrained ones are the identity, and would hide what they are called with.
    torch.nn.init.normal_(made.up.weight, std=0.1)
    return made.eval()


# --- several models -------------------------------------------------------------------


@pytest.fixture
def copies(root, tmp_path) -> list[Path]:
    """Return two folders of the shipped model."""
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.symlink_to(root / MODEL)
    return folders


def timing(copies, **changes) -> dict:
    plain = [{"model": str(f), "tokens": 4, "sampler": GUIDED} for f in copies]
    light = {**plain[1], "sampler": {**GUIDED, "clock": 2}, "adaptor": "resnet"}
    runs = {"one": plain[0], "two": plain[1], "two_clockwork": light}
    return {"runs": runs, "repeats": 2, "text_channels": 8, **changes}


def test_runs_of_several_models_take_turns_and_each_model_is_loaded_once(
    copies, tmp_path, monkeypatch
):
    from clockwork_experiments.models import loading

    loaded, turns = [], []
    load, loop_of = loading.load_pipeline, latency.unet_loop

    def note_load(folder, *args):
        loaded.append(folder)
        return load(folder, *args)

    def note_loop(passes, *args):
        loop, number = loop_of(passes, *args), len(made)
        made.append(passes)
        return lambda: (turns.append(number), loop())[1]

    made: list[Passes] = []
    monkeypatch.setattr(loading, "load_pipeline", note_load)
    monkeypatch.setattr(latency, "unet_loop", note_loop)
    output = tmp_path / "out.json"
    time_sampling.time_sampling(parse(TimingSpec, timing(copies)), output)
    assert loaded == copies
    one, two, light = (passes.unet for passes in made)
    assert two is light and one is not two
    result = storage.read_json(output)["runs"]
    assert list(result) == ["one", "two", "two_clockwork"]
    assert all(len(timed["runs"]) == 2 for timed in result.values())
    # After the warm-up each run has its turn before any has its second.
    changes = [a for a, b in zip(turns, [*turns[1:], None], strict=True) if a != b]
    assert changes == [0, 1, 2] * 3


def test_an_adaptor_of_another_model_is_not_timed(copies, root, tmp_path):
    made_for = {"model": "0" * 64, "scheduler": "dpmpp", "steps": 2, "cut": "stage1"}
    from diffusers import UNet2DConditionModel

    sizes = UNet2DConditionModel.load_config(root / MODEL / "unet")
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(sizes)
    made = adaptors.build_adaptor("resnet", unet, "stage1", 8, made_for=made_for)
    made.save_pretrained(tmp_path / "adaptor")
    storage.write_checksums(tmp_path / "adaptor")
    spec = timing(copies)
    spec["runs"]["two_clockwork"]["adaptor"] = str(tmp_path / "adaptor")
    with pytest.raises(ValueError, match="trained for model '0000"):
        time_sampling.time_sampling(parse(TimingSpec, spec), tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_an_unknown_precision_is_named():
    with pytest.raises(ValueError, match="'half' is not float16 or float32"):
        time_sampling.TimingSpec({}, 1, 8, "half")


# --- overhead -------------------------------------------------------------------------


@pytest.mark.parametrize("attention", [True, False])
def test_the_bare_modules_do_what_an_adaptor_step_does(attention, adaptor, unet):
    from clockwork_experiments.cost.architectures import build_unet

    if not attention:
        unet = build_unet("efficient", dict(unet.config), "cpu")
    given = latency.random_inputs(unet, 3, 5, 12)
    door = latency.through_the_door(unet, adaptor, given, rounds=2)
    with door as kinds, torch.inference_mode():
        # Every round is the same, however often it is timed.
        for ours, bare in (*kinds.values(), *kinds.values()):
            assert torch.equal(ours(), bare())
    assert "forward" not in vars(unet)


def test_the_adaptor_step_is_no_full_step(adaptor, unet):
    given = latency.random_inputs(unet, 2, 5, 12)
    door = latency.through_the_door(unet, adaptor, given, rounds=1)
    with door as kinds, torch.inference_mode():
        assert not torch.equal(kinds["adaptor"][1](), kinds["full"][1]())


class Clock:
    """A clock that only what is timed moves; every tenth call is disturbed."""

    def __init__(self) -> None:
        self.now, self.calls, self.random = 0.0, 0, random.Random(0)

    def takes(self, seconds: float):
        def call() -> None:
            self.calls += 1
            slow = 5 if self.calls % 10 == 0 else 1
            self.now += seconds * slow * self.random.uniform(0.98, 1.02)

        return call


@pytest.mark.parametrize("extra", [0.0, 0.02, 0.5])
def test_an_overhead_is_found_whatever_disturbs_single_calls(extra, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(latency, "timer", lambda: clock.now)
    ours, bare = clock.takes(0.001 * (1 + extra)), clock.takes(0.001)
    found = latency.compare(ours, bare, pairs=400)
    assert found.overhead == pytest.approx(extra, abs=0.004)
    assert found.low <= found.overhead <= found.high
    assert found.high - found.low < 0.01
    assert found.control == pytest.approx(0, abs=0.004)
    assert found.bare_ms == pytest.approx(1, rel=0.01)
    assert found.pairs == 400


def test_the_order_of_each_pair_is_random(monkeypatch):
    """Or the one that always follows the other would find its cache warm."""
    order: list[str] = []
    latency.compare(
        lambda: order.append("o"), lambda: order.append("b"), 200, warm_up=0
    )
    triples = [tuple(order[i : i + 3]) for i in range(0, 600, 3)]
    counts = Counter(triple.index("o") for triple in triples)
    assert all(40 < counts[place] < 95 for place in range(3))


def test_one_pair_is_no_measurement():
    with pytest.raises(ValueError, match="2 pairs or more, not 1"):
        latency.compare(lambda: None, lambda: None, pairs=1)


def test_overheads_are_written_with_their_bars(root, tmp_path):
    cases = [
        {"batch": 2, "pairs": 2},
        {"batch": 1, "pairs": 3, "channels": [32, 64, 64, 64], "size": 8},
    ]
    spec = {"model": str(root / MODEL), "tokens": 4, "text_channels": 8}
    spec |= {"adaptor": "resnet", "cases": cases}
    output = tmp_path / "overhead.json"
    measure_overhead.measure_overhead(parse(OverheadSpec, spec), output)
    result = storage.read_json(output)
    assert [case["channels"][0] for case in result["cases"]] == [32, 32]
    assert result["cases"][1]["unet"] == "random weights"
    result["cases"][0]["steps"]["adaptor"]["overhead"] = 0.009
    result["cases"][1]["steps"]["adaptor"]["overhead"] = 0.011
    lines = overhead.to_markdown(result).splitlines()
    rows = [line for line in lines if line.startswith("| adaptor step")]
    assert "+0.9 %" in rows[0] and rows[0].endswith("| ≤ 1 % | yes |")
    assert "+1.1 %" in rows[1] and rows[1].endswith("| ≤ 1 % | no |")
    assert "2 to 3 pairs" in lines[-1]


# --- modes ----------------------------------------------------------------------------


def test_a_loop_starts_from_the_same_inputs_each_time(adaptor, unet):
    spec = SamplerSpec("dpmpp", 4, 2.0, clock=2)
    passes = Passes(SplitUNet(unet), adaptor)
    first, second = (latency.unet_loop(passes, spec, 5, 12)() for _ in range(2))
    assert torch.equal(first, second)
    # Of the last pass: step 4 of clock 2 is an adaptor step.
    full = SamplerSpec("dpmpp", 4, 2.0)
    assert not torch.equal(first, latency.unet_loop(passes, full, 5, 12)())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_there_are_no_graphs_and_no_name():
    with pytest.raises(ValueError, match="needs a CUDA GPU"):
        latency.captured(lambda: torch.zeros(1))
    with pytest.raises(ValueError, match="needs a CUDA GPU"):
        latency.gpu_slug()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_graph_repeats_its_loop(adaptor, unet):
    spec = SamplerSpec("dpmpp", 4, 2.0, clock=2)
    passes = Passes(SplitUNet(unet.to("cuda")), adaptor.to("cuda"))
    try:
        loop = latency.unet_loop(passes, spec, 5, 12)
        replay, expected = latency.captured(loop), loop()
        replay().zero_()
        torch.testing.assert_close(replay(), expected)
    finally:
        unet.to("cpu")


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("NVIDIA H200", "nvidia_h200"),
        ("NVIDIA A100-SXM4-80GB", "nvidia_a100_sxm4_80gb"),
        ("Tesla V100-PCIE-16GB (x)", "tesla_v100_pcie_16gb_x"),
    ],
)
def test_a_gpu_is_named_as_a_path_takes_it(name, slug):
    assert latency.gpu_slug(name) == slug


def test_a_difference_is_relative_and_none_where_it_is_not_finite():
    reference = torch.tensor([3.0, 4.0])
    assert latency.relative_difference(reference, reference) == 0
    assert latency.relative_difference(reference * 1.1, reference) == pytest.approx(0.1)
    assert latency.relative_difference(reference * torch.nan, reference) is None


# --- UNets with random weights --------------------------------------------------------


def timing_of_unets(**changes) -> dict:
    clockwork = {"sampler": {**GUIDED, "clock": 2}, "adaptor": "resnet"}
    alone = {"sampler": {**GUIDED, "guidance": 1.0}}
    return {
        "runs": {
            "sd": {
                "backbone": "sd",
                "label": "SD UNet",
                "sampler": GUIDED,
                "published": {"rtx3080": 454, "a100": 235},
            },
            "sd_clockwork": {
                "backbone": "sd",
                "label": "+ Clockwork",
                "baseline": "sd",
                "published": {"rtx3080": 341, "a100": 183},
                **clockwork,
            },
            "distilled": {"backbone": "distilled", "label": "Distilled", **alone},
        },
        "repeats": 2,
        "modes": ["eager", "compile"],
        "tokens": 4,
        "text_channels": 8,
        "dtype": "float32",
        "base": SMALL,
        **changes,
    }


def time_unets(folder: Path, **changes) -> None:
    spec = changes.pop("spec", None) or timing_of_unets()
    given = {"device": "cpu", "output": folder / "x.json", **changes}
    time_unet.time_unet(parse(UNetTimingSpec, spec), **given)


@pytest.fixture
def aot_eager(monkeypatch):
    """Compile without a compiler."""

    def compiled(function):
        return torch.compile(function, fullgraph=True, backend="aot_eager")

    monkeypatch.setattr(passes, "_compile", compiled)


def test_unets_are_timed_in_each_mode(tmp_path, aot_eager):
    # One layer per block takes half as long to compile.
    spec = timing_of_unets(base={**SMALL, "layers_per_block": 1})
    time_unets(tmp_path, spec=spec)
    result = storage.read_json(tmp_path / "x.json")
    assert result["complete"]
    rows = result["rows"]
    assert list(rows) == [
        f"{mode}/{run}"
        for mode in ("eager", "compile")
        for run in ("sd", "sd_clockwork", "distilled")
    ]
    for row in rows.values():
        assert row["batch"] == (1 if row["run"] == "distilled" else 2)
        assert len(row["runs"]) == 2
        assert row["difference"] < 1e-4
    assert rows["eager/sd_clockwork"]["difference"] == 0
    text = (tmp_path / "x.md").read_text("utf-8")
    assert "random weights" in text
    (line,) = (line for line in text.splitlines() if "+ Clockwork" in line)
    assert line.endswith("| 341 (−24.9 %) | 183 (−22.1 %) |")


def test_a_failure_costs_its_own_rows_and_the_next_call_makes_up_for_it(
    tmp_path, monkeypatch
):
    """What is there is not timed again."""
    monkeypatch.setattr(passes, "_compile", lambda function: function)
    with monkeypatch.context() as patch:

        def broken(function):
            raise RuntimeError("no compiler")

        patch.setattr(passes, "_compile", broken)
        time_unets(tmp_path)
    first = storage.read_json(tmp_path / "x.json")
    assert not first["complete"]
    assert "mean_ms" in first["rows"]["eager/distilled"]
    assert first["rows"]["compile/sd"]["error"] == "RuntimeError: no compiler"
    assert "compile/sd: RuntimeError" in (tmp_path / "x.md").read_text("utf-8")

    time_unets(tmp_path)
    second = storage.read_json(tmp_path / "x.json")
    assert second["complete"]
    assert second["rows"]["eager/sd"] == first["rows"]["eager/sd"]
    # Once complete, another call measures anew.
    time_unets(tmp_path)
    third = storage.read_json(tmp_path / "x.json")
    assert third["rows"]["eager/sd"]["runs"] != first["rows"]["eager/sd"]["runs"]


def test_rows_are_there_before_the_last_one_is(tmp_path, monkeypatch):
    """As after a kill, which no handler sees."""
    time_backbone = unet_timing.time_backbone

    def killed(spec, mode, backbone, *args):
        if backbone == "distilled":
            raise KeyboardInterrupt
        return time_backbone(spec, mode, backbone, *args)

    monkeypatch.setattr(unet_timing, "time_backbone", killed)
    state = tmp_path / "state.json"
    spec = timing_of_unets(modes=["eager"])
    with pytest.raises(KeyboardInterrupt):
        time_unets(tmp_path, spec=spec, state=state)
    for path in (state, tmp_path / "x.json"):
        assert set(storage.read_json(path)["rows"]) == {
            "eager/sd",
            "eager/sd_clockwork",
        }
    kept = storage.read_json(state)["rows"]["eager/sd"]
    # The workflow removes what a failed job was to write, and the state stays.
    (tmp_path / "x.json").unlink()
    monkeypatch.setattr(unet_timing, "time_backbone", time_backbone)
    time_unets(tmp_path, spec=spec, state=state)
    assert storage.read_json(tmp_path / "x.json")["rows"]["eager/sd"] == kept
    assert not state.exists()


def test_times_of_other_settings_are_not_taken_over(tmp_path):
    spec = timing_of_unets(modes=["eager"], last_start_s=-1.0)
    time_unets(tmp_path, spec=spec)
    rows = storage.read_json(tmp_path / "x.json")["rows"]
    assert "not begun after" in rows["eager/sd"]["error"]
    spec = timing_of_unets(modes=["eager"])
    facts = {**storage.read_json(tmp_path / "x.json"), "rows": {}, "complete": False}
    facts["rows"]["eager/sd"] = {"mode": "eager", "run": "sd", "mean_ms": 1.0}
    storage.write_json(tmp_path / "x.json", facts)
    time_unets(tmp_path, spec=spec)
    rows = storage.read_json(tmp_path / "x.json")["rows"]
    assert rows["eager/sd"]["mean_ms"] != 1.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gpu": "nvidia_h200"}, "the device here is cpu, not nvidia_h200"),
        (
            {"spec": timing_of_unets(modes=["fast"])},
            "mode 'fast' is not one of eager, g",
        ),
        ({"device": "cuda"}, "timed on a CUDA GPU, and there is none here"),
    ],
)
def test_what_cannot_be_timed_is_refused_in_one_line(tmp_path, changes, message):
    if torch.cuda.is_available() and changes.get("device") == "cuda":
        pytest.skip("there is a GPU")
    with pytest.raises(ValueError, match=message) as error:
        time_unets(tmp_path, **changes)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())
