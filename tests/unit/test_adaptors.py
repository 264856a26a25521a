import json
from pathlib import Path

import pytest
import torch
from bare import sample_latents
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from safetensors.torch import load_file, save_file

from clockwork_diffusion import adaptors
from clockwork_diffusion.adaptors import (
    KINDS,
    ExtrapolationAdaptor,
    IdentityAdaptor,
    build_adaptor,
    is_learned,
    load_adaptor,
)
from clockwork_diffusion.contract import (
    INPUTS,
    check_adaptor,
    check_inputs,
    cut_of,
    inputs_of,
    matched,
)
from clockwork_diffusion.encoding import Prompts
from clockwork_diffusion.made_for import check_made_for
from clockwork_diffusion.passes import Passes, Past
from clockwork_diffusion.schedulers import log_snr
from clockwork_diffusion.unet import SplitUNet
from clockwork_experiments.base import storage
from clockwork_experiments.cost.architectures import build_unet
from clockwork_experiments.cost.flops import count_light
from clockwork_experiments.generate.text import (
    SamplerSpec,
    initial_noise,
)

LEARNED = ["resnet", "unet", "unet_light"]
CHOICES = [
    ("r_in",),
    ("r_out",),
    ("r_in", "r_out"),
    ("r_in", "text"),
    ("r_in", "r_out", "text"),
]


def features(height: int = 8, width: int = 8) -> dict[str, torch.Tensor]:
    """Return what the adaptor of the tests' UNet takes, by input."""
    generator = torch.Generator().manual_seed(3)
    shapes = {
        "r_in": (2, 16, height, width),
        "r_out": (2, 32, height, width),
        "t_emb": (2, 64),
        "text": (2, 8),
    }
    return {
        name: torch.randn(shape, generator=generator) for name, shape in shapes.items()
    }


def trained(unet, kind: str, **options) -> torch.nn.Module:
    """Return an adaptor whose last layer is no longer zero."""
    torch.manual_seed(4)
    adaptor = build_adaptor(kind, unet, "stage1", 8, **options).eval()
    torch.nn.init.normal_(adaptor.up.weight, std=0.1)
    return adaptor


def call(adaptor, given: dict[str, torch.Tensor | None]) -> torch.Tensor:
    return adaptor(given["r_in"], given["r_out"], given["t_emb"], given["text"])


# --- the learned kinds ---------------------------------------------------------------


@pytest.mark.parametrize("kind", LEARNED)
@torch.no_grad()
def test_an_untrained_adaptor_is_the_identity(unet, kind):
    given = features()
    adaptor = build_adaptor(kind, unet, "stage1", 8)
    assert torch.equal(call(adaptor, given), given["r_out"])


@pytest.mark.parametrize("size", [(8, 8), (9, 7), (5, 6), (1, 2)])
@pytest.mark.parametrize("kind", LEARNED)
@torch.no_grad()
def test_any_size_is_kept_and_each_place_corrected(unet, kind, size):
    given = features(*size)
    correction = call(trained(unet, kind), given) - given["r_out"]
    assert correction.shape == (2, 32, *size)
    assert (correction != 0).flatten(2).any(dim=1).all()


@pytest.mark.parametrize("kind", LEARNED)
@pytest.mark.parametrize("name", [*INPUTS, "t_emb"])
@torch.no_grad()
def test_every_input_matters(unet, kind, name):
    adaptor, given = trained(unet, kind), features()
    correction = call(adaptor, given) - given["r_out"]
    given[name] = given[name] + 1.0 + torch.randn_like(given[name])
    assert not torch.allclose(call(adaptor, given) - given["r_out"], correction)


@pytest.mark.parametrize("kind", LEARNED)
def test_every_weight_is_trained(unet, kind):
    adaptor = trained(unet, kind)
    call(adaptor, features()).square().mean().backward()
    for name, parameter in adaptor.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


def test_the_sizes_follow_the_unet(unet):
    groups, first = 8, 16
    for kind, width, blocks in (("unet", 640, 4), ("unet_light", 96, 2)):
        adaptor = build_adaptor(kind, unet, "stage1", 8)
        scaled = max(1, round(width * first / 320 / groups)) * groups
        assert adaptor.down.out_channels == scaled
        assert adaptor.up_inner[2].in_channels == 2 * scaled
        assert len(adaptor.middle) == blocks
    large, light = (
        sum(p.numel() for p in build_adaptor(kind, unet, "stage1", 8).parameters())
        for kind in ("unet", "unet_light")
    )
    assert large > 2 * light


@pytest.mark.parametrize("kind", LEARNED)
@torch.no_grad()
def test_the_unet_takes_them_at_both_cuts(unet, inputs, kind):
    for cut, channels in (("stage1", 32), ("stage2", 64)):
        split = SplitUNet(unet, cut)
        adaptor = build_adaptor(kind, unet, cut, 8)
        step = split.full(*inputs)
        light = split.adapt(*inputs, step.r_out, adaptor, torch.randn(2, 8))
        assert light.r_out.shape[1] == channels
        # Untrained, it hands on what it was given.
        torch.testing.assert_close(light.eps, step.eps, rtol=0, atol=1e-4)


@torch.no_grad()
def test_the_unet_adaptor_compiles_as_one_graph(unet):
    torch._dynamo.reset()
    adaptor, given = trained(unet, "unet_light"), features(9, 7)
    compiled = torch.compile(adaptor, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(call(compiled, given), call(adaptor, given))


# --- the choice of inputs ------------------------------------------------------------


@pytest.mark.parametrize("inputs", CHOICES)
@pytest.mark.parametrize("kind", LEARNED)
@torch.no_grad()
def test_only_the_chosen_inputs_count(unet, kind, inputs):
    adaptor, given = trained(unet, kind, inputs=inputs), features()
    estimate = call(adaptor, given)
    assert estimate.shape == given["r_out"].shape
    alone = {name: None if name in INPUTS else given[name] for name in given}
    alone.update({name: given[name] for name in inputs})
    assert torch.equal(call(adaptor, alone), estimate)
    for name in inputs:
        with pytest.raises(ValueError, match="needs a pooled|needs r_"):
            call(adaptor, {**alone, name: None})
    # The time embedding is always there.
    assert not torch.equal(call(adaptor, {**alone, "t_emb": -given["t_emb"]}), estimate)


@torch.no_grad()
def test_without_r_out_there_is_no_residual(unet):
    adaptor, given = trained(unet, "resnet", inputs=("r_in", "text")), features()
    torch.nn.init.zeros_(adaptor.up.weight)
    torch.nn.init.zeros_(adaptor.up.bias)
    assert not call(adaptor, given).any()
    # Nor is it set to zero at the start, where zero is no identity.
    fresh = build_adaptor("resnet", unet, "stage1", 8, inputs=("r_in",))
    assert fresh.up.weight.any()


@pytest.mark.parametrize("inputs", CHOICES)
@torch.no_grad()
def test_the_choice_is_saved_and_loaded(unet, tmp_path, inputs):
    adaptor = trained(unet, "resnet", inputs=list(inputs))
    adaptor.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["inputs"] == list(inputs)
    loaded = load_adaptor(tmp_path)
    assert loaded.inputs == loaded.config.inputs == adaptor.inputs == inputs
    assert torch.equal(call(loaded, features()), call(adaptor, features()))


def test_adaptors_saved_before_there_was_a_choice_still_load(unet, tmp_path):
    adaptor = trained(unet, "resnet")
    adaptor.save_pretrained(tmp_path)
    config = storage.read_json(tmp_path / "config.json")
    del config["inputs"]
    storage.write_json(tmp_path / "config.json", config)
    assert load_adaptor(tmp_path).inputs == INPUTS


def test_the_order_of_inputs_is_theirs():
    assert check_inputs(["text", "r_out", "r_in"]) == INPUTS


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((), "hold neither r_in nor r_out"),
        (("text",), "hold neither r_in nor r_out"),
        (("r_in", "image"), "input 'image' is not one of r_in, r_out, text"),
    ],
)
def test_bad_inputs_are_refused(unet, inputs, message):
    with pytest.raises(ValueError, match=message):
        build_adaptor("resnet", unet, "stage1", 8, inputs=inputs)


@pytest.mark.parametrize("kind", ["identity", "extrapolation"])
def test_kinds_without_weights_leave_no_choice(unet, kind):
    assert not is_learned(kind)
    with pytest.raises(ValueError, match=f"kind '{kind}' leaves no choice of inputs"):
        build_adaptor(kind, unet, "stage1", 8, inputs=("r_out",))


# --- extrapolation -------------------------------------------------------------------


def line(step: int) -> torch.Tensor:
    """Return features that change linearly with the step."""
    start, slope = torch.arange(24.0).view(2, 3, 2, 2), torch.ones(2, 3, 2, 2) / 4
    return start + step * slope


@pytest.mark.parametrize(
    ("newest", "older", "step"), [(2, 0, 3), (4, 0, 5), (4, 0, 7), (6, 3, 7)]
)
def test_a_line_is_continued_exactly(newest, older, step):
    history = torch.stack([line(newest), line(older)])
    ages = torch.tensor([step - newest, step - older])
    estimate = ExtrapolationAdaptor()(None, history, None, None, ages)
    torch.testing.assert_close(estimate, line(step))


def test_at_clock_2_half_the_last_change_is_added():
    a, b = torch.randn(2, 1, 3, 2, 2).unbind()
    estimate = ExtrapolationAdaptor()(
        None, torch.stack([a, b]), None, None, torch.tensor([1, 3])
    )
    torch.testing.assert_close(estimate, a + (a - b) / 2)


@pytest.mark.parametrize("age", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_after_one_full_pass_it_is_the_identity(age, dtype):
    a = line(0).to(dtype)
    estimate = ExtrapolationAdaptor()(
        None, torch.stack([a, a]), None, None, torch.tensor([age, age])
    )
    assert estimate.dtype == dtype
    assert torch.equal(estimate, a)


def test_extrapolation_compiles_once_for_all_ages():
    torch._dynamo.reset()
    adaptor = ExtrapolationAdaptor()
    compiled = torch.compile(adaptor, fullgraph=True, backend="aot_eager")
    history = torch.stack([line(4), line(0)])
    with torch._dynamo.config.patch(error_on_recompile=True):
        for step in (5, 6, 7):
            ages = torch.tensor([step - 4, step])
            estimate = compiled(None, history, None, None, ages)
            torch.testing.assert_close(estimate, line(step))


def test_a_history_of_one_is_refused():
    with pytest.raises(ValueError, match=r"not r_out of shape \(2, 3, 2, 2\) and ages"):
        ExtrapolationAdaptor()(None, line(0), None)


def test_callers_can_tell_the_histories_apart(unet):
    histories = {kind: build_adaptor(kind, unet, "stage1", 8).history for kind in KINDS}
    assert histories.pop("extrapolation") == 2
    assert histories.pop("resnet_extrapolation") == 2
    assert histories.pop("taylor") == 3
    assert histories.pop("affine") == histories.pop("low_rank") == 2
    assert set(histories.values()) == {1}


def test_ages_may_differ_from_row_to_row():
    newest, older, steps = [2, 4], [0, 1], torch.tensor([3, 7])
    history = torch.stack(
        [
            torch.cat([line(step)[row : row + 1] for row, step in enumerate(full)])
            for full in (newest, older)
        ]
    )
    ages = torch.stack([steps - torch.tensor(full) for full in (newest, older)])
    estimate = ExtrapolationAdaptor()(None, history, None, None, ages)
    for row, step in enumerate(steps.tolist()):
        torch.testing.assert_close(estimate[row], line(step)[row])


# --- the abscissa --------------------------------------------------------------------


def test_log_snr_is_that_of_the_noise_schedule(scheduler_config):
    scheduler = DDIMScheduler.from_config(scheduler_config)
    alphas = scheduler.alphas_cumprod.double()
    expected = (alphas / (1 - alphas)).log()
    at = log_snr(scheduler, torch.tensor([0, 500, 999]))
    torch.testing.assert_close(at, expected[[0, 500, 999]].float())
    # Between two timesteps, and for every scheduler of the same model.
    euler = EulerDiscreteScheduler.from_config(scheduler_config)
    between = log_snr(euler, torch.tensor(500.25))
    torch.testing.assert_close(between, (at[1] * 0.75 + 0.25 * expected[501]).float())
    # Falling signal, and finite where there is none left.
    zero = DDIMScheduler.from_config(scheduler_config, rescale_betas_zero_snr=True)
    assert log_snr(zero, torch.tensor(999)) < log_snr(zero, torch.tensor(998))
    assert log_snr(zero, torch.tensor(999)).isfinite()
    with pytest.raises(ValueError, match="FlowMatch.* has no alphas_cumprod"):
        log_snr(FlowMatchEulerDiscreteScheduler(), torch.tensor(1))


def test_only_the_ratio_of_ages_counts_so_that_even_steps_are_as_before():
    history = torch.stack([line(4), line(0)])
    by_steps, by_log_snr = (
        ExtrapolationAdaptor()(None, history, None, None, torch.tensor(ages))
        for ages in ([1.0, 5.0], [-0.37, -1.85])
    )
    torch.testing.assert_close(by_log_snr, by_steps)
    torch.testing.assert_close(by_steps, line(5))


# --- adaptors of one's own -----------------------------------------------------------


class Half(torch.nn.Module):
    """An adaptor that knows nothing of ours."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, r_in, r_out, t_emb, text_emb=None):
        return r_out * self.scale


def test_a_plain_module_is_an_adaptor(unet, inputs):
    adaptor = Half()
    check_adaptor(adaptor)
    assert inputs_of(adaptor) == ("r_in", "r_out")
    assert cut_of(adaptor) is None
    assert cut_of(IdentityAdaptor(cut="stage2")) == "stage2"
    split = SplitUNet(unet, "stage2")
    passes = Passes(split, adaptor)
    step = passes.full(*inputs)
    light = passes.light(*inputs, Past(passes.keep(step)))
    assert torch.equal(light.r_out, step.r_out * 0.5)


@pytest.mark.parametrize(
    ("adaptor", "message"),
    [
        (3, "a int cannot be called"),
        (torch.nn.Linear(2, 2), "Linear cannot be called with r_in, r_out, t_emb, tex"),
        (type("Odd", (Half,), {"inputs": ("image",)})(), "input 'image' is not one of"),
        (type("Two", (Half,), {"history": 2})(), "Two cannot be called with .*, ages"),
    ],
)
def test_what_cannot_be_called_is_refused(adaptor, message):
    with pytest.raises(ValueError, match=message):
        check_adaptor(adaptor)


def test_precision_and_device_follow_and_digits_stay():
    adaptor = Half()
    adaptor.scale.data.fill_(1 / 3)
    assert matched(adaptor, torch.float32, torch.device("cpu")) is adaptor
    half = matched(adaptor, torch.bfloat16, torch.device("cpu"))
    assert half.scale.dtype == torch.bfloat16
    assert adaptor.scale == torch.tensor(1 / 3)
    assert matched(max, torch.bfloat16, torch.device("cpu")) is max


# --- the ResNet adaptor that starts from it ------------------------------------------


@pytest.mark.parametrize("sampler", [{"clock": 2}, {"clock": 3}])
def test_untrained_it_samples_as_the_extrapolation_does(
    unet, scheduler_config, sampler
):
    generator = torch.Generator().manual_seed(5)
    prompts = Prompts(
        torch.randn(2, 5, 24, generator=generator),
        torch.randn(1, 5, 24, generator=generator),
        torch.randn(2, 8, generator=generator),
        torch.randn(1, 8, generator=generator),
    )
    noise = initial_noise([1, 2], (4, 16, 16))
    spec = SamplerSpec("dpmpp", 6, 3.0, **sampler)

    def sample(adaptor):
        passes = Passes(SplitUNet(unet), adaptor)
        return sample_latents(passes, scheduler_config, prompts, noise, spec)

    learned = build_adaptor("resnet_extrapolation", unet, "stage1", 8).eval()
    expected = sample(ExtrapolationAdaptor())
    assert torch.equal(sample(learned), expected)
    # Its weights do count once they are not zero, and identity is something else.
    assert not torch.equal(sample(trained(unet, "resnet_extrapolation")), expected)
    assert not torch.equal(sample(IdentityAdaptor()), expected)


@torch.no_grad()
def test_it_is_the_resnet_adaptor_of_the_extrapolated_features(unet):
    given = features()
    newest, older = given["r_out"], given["r_out"].flip(0)
    ages = torch.tensor([1, 3])
    learned = trained(unet, "resnet_extrapolation")
    plain = trained(unet, "resnet")
    plain.load_state_dict(learned.state_dict())
    base = newest + (newest - older) / 2
    expected = plain(given["r_in"], base, given["t_emb"], given["text"])
    history = torch.stack([newest, older])
    estimate = learned(given["r_in"], history, given["t_emb"], given["text"], ages)
    torch.testing.assert_close(estimate, expected)


def test_it_costs_what_the_resnet_adaptor_costs():
    unet = build_unet("sd")
    counts = []
    for kind in ("resnet", "resnet_extrapolation"):
        with torch.device("meta"):
            adaptor = build_adaptor(kind, unet, "stage1", 1024)
        counts.append(count_light(unet, 77, adaptor, 1024)["step"])
    assert counts[0] == counts[1]
    assert counts[0].flops > 228.4e9


def test_it_needs_r_out(unet):
    with pytest.raises(ValueError, match="needs r_out among its inputs"):
        build_adaptor("resnet_extrapolation", unet, "stage1", 8, inputs=("r_in",))
    adaptor = build_adaptor("resnet_extrapolation", unet, "stage1", 8)
    with pytest.raises(ValueError, match="needs r_out"):
        adaptor(torch.zeros(1, 16, 8, 8), None, torch.zeros(1, 64), torch.zeros(1, 8))
    with pytest.raises(ValueError, match="needs r_out of two full passes"):
        call(adaptor, features())


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_saved_and_loaded(unet, tmp_path, kind):
    adaptor = build_adaptor(kind, unet, "stage2", 8)
    adaptor.save_pretrained(tmp_path)
    storage.write_checksums(tmp_path)
    loaded = load_adaptor(tmp_path)
    assert type(loaded) is KINDS[kind]
    assert loaded.config.cut == "stage2"
    weights = loaded.state_dict()
    assert weights.keys() == adaptor.state_dict().keys()
    for name, value in adaptor.state_dict().items():
        assert torch.equal(weights[name], value), name


@pytest.mark.parametrize("kind", [str, Path])
def test_a_folder_is_a_string_or_a_path(saved, kind):
    assert load_adaptor(kind(saved)).config.made_for["clock"] == 2


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("text", "no folder 'text', and it is no hub id either"),
        (Path("no/such"), "no folder 'no/such', and it is no hub id"),
        ("own/er/name", "no folder 'own/er/name', and it is no hub id"),
    ],
)
def test_what_is_nowhere(source, message):
    with pytest.raises(ValueError, match=message):
        load_adaptor(source)


def test_a_hub_id_is_downloaded(saved, monkeypatch):
    asked = []

    def snapshot(source, **options):
        asked.append((source, options["revision"]))
        if source == "some/where":
            return str(saved)
        raise OSError("no such repository\nand more")

    monkeypatch.setattr(adaptors, "snapshot_download", snapshot)
    assert load_adaptor("some/where", revision="v2").config.made_for["clock"] == 2
    assert asked == [("some/where", "v2")]
    message = (
        "no folder 'some/other', and the hub does not give it: no such repository$"
    )
    with pytest.raises(ValueError, match=message):
        load_adaptor("some/other")


def test_weights_are_all_there_and_finite(saved):
    path = saved / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    for change, message in (
        ({"up.bias": torch.full_like(weights["up.bias"], torch.nan)}, "not finite"),
        ({"up.more": torch.zeros(1)}, "is not of this adaptor.*up.more"),
        ({"up.bias": None}, "is not of this adaptor.*up.bias"),
    ):
        changed = {**weights, **change}
        save_file({n: v for n, v in changed.items() if v is not None}, path)
        with pytest.raises(ValueError, match=f"(?s){message}"):
            load_adaptor(saved)
    path.unlink()
    with pytest.raises(ValueError, match="does not exist"):
        load_adaptor(saved)
    (saved / "config.json").unlink()
    with pytest.raises(ValueError, match="holds no adaptor"):
        load_adaptor(saved)


# --- what an adaptor is for ----------------------------------------------------------

MADE_FOR = {"model": "a" * 64, "scheduler": "dpmpp", "steps": 8, "cut": "stage1"}


@pytest.fixture
def saved(unet, tmp_path):
    folder = tmp_path / "learned"
    made_for = {**MADE_FOR, "clock": 2}
    adaptor = build_adaptor("resnet", unet, "stage1", 8, made_for=made_for)
    adaptor.save_pretrained(folder)
    return folder


def test_an_adaptor_is_taken_for_what_it_is(saved):
    check_made_for(load_adaptor(saved), saved, **MADE_FOR)
    check_made_for(load_adaptor(saved), saved, **{**MADE_FOR, "model": None})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"scheduler": "ddim"},
            "trained for scheduler 'dpmpp', and asked for .*'ddim'",
        ),
        ({"steps": 4}, "trained for steps 8, and asked for steps 4"),
        ({"cut": "stage2"}, "trained for cut 'stage1', and asked for cut 'stage2'"),
        ({"model": "b" * 64}, "for model 'a{12}…', and asked for model 'b{12}…'"),
        (
            {"scheduler": "ddim", "steps": 4},
            "for scheduler 'dpmpp', steps 8, and asked for scheduler 'ddim', steps 4",
        ),
    ],
)
def test_an_adaptor_for_something_else_is_refused_by_name(saved, change, message):
    with pytest.raises(ValueError, match=message) as caught:
        check_made_for(load_adaptor(saved), saved, **{**MADE_FOR, **change})
    assert str(saved) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("made_for", [None, {"steps": 8, "clock": 2}])
def test_an_adaptor_that_does_not_say_is_refused(unet, tmp_path, made_for):
    adaptor = build_adaptor("unet_light", unet, "stage1", 8, made_for=made_for)
    with pytest.raises(ValueError, match="does not say for which model, scheduler"):
        check_made_for(adaptor, tmp_path, **MADE_FOR)


def test_without_weights_only_the_cut_counts(tmp_path):
    for adaptor in (IdentityAdaptor(), ExtrapolationAdaptor()):
        check_made_for(adaptor, tmp_path, **MADE_FOR)
        with pytest.raises(ValueError, match="asked for cut 'stage2'"):
            check_made_for(adaptor, tmp_path, **{**MADE_FOR, "cut": "stage2"})
