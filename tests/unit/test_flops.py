"""Counts of SD v1.5's architecture against the published figures; no weights."""

import copy
from decimal import ROUND_HALF_UP, Decimal

import pytest
import torch

from clockwork_diffusion.adaptors import build_adaptor
from clockwork_diffusion.unet import SplitUNet
from clockwork_experiments.cost import other_unets
from clockwork_experiments.cost.architectures import (
    BACKBONES,
    SD_V15_TEXT,
    VIT_G14_WIDTH,
    build_unet,
)
from clockwork_experiments.cost.flops import (
    count_blocks,
    count_calls,
    count_full,
    count_light,
)
from clockwork_experiments.cost.formulas import run_flops

TOKENS = SD_V15_TEXT[0]
# Published TFLOPs at 8 steps, without and with Clockwork, and the tolerance that their
# one printed decimal leaves. The last is an exception: see its own test.
TABLE_1 = {"sd": (10.8, 7.3), "efficient": (9.5, 5.9), "distilled": (4.7, None)}
# Competitors' rows: published TFLOPs, the backbone that they run, steps, samples per
# step. Their FLOPs include attention products.
COMPETITORS = {
    "Meng et al.": (6.4, "sd", 8, 1),
    "BK-SDM-Base": (8.4, "bk_sdm_base", 8, 2),
    "BK-SDM-Small": (8.2, "bk_sdm_small", 8, 2),
    "BK-SDM-Tiny": (7.8, "bk_sdm_tiny", 8, 2),
    "InstaFlow": (0.8, "sd", 1, 1),
}
FIGURE_S1 = {
    "DOWN-0": ("10.52", "32.9"),
    "DOWN-1": ("36.82", "31.3"),
    "DOWN-2": ("140.0", "31.5"),
    "DOWN-3": ("62.28", "3.78"),
    "MID": ("97.04", "6.03"),
    "UP-0": ("162.2", "12.9"),
    "UP-1": ("258.3", "75.1"),
    "UP-2": ("71.41", "79.1"),
    "UP-3": ("18.81", "66.0"),
}


@pytest.fixture(scope="module")
def counted() -> dict[str, dict]:
    counts = {}
    for name in BACKBONES:
        unet = build_unet(name)
        counts[name] = {
            "full": count_full(unet, TOKENS).to_json(),
            "parameters": sum(p.numel() for p in unet.parameters()),
            "adaptors": {},
        }
        for kind in ("identity", "resnet"):
            with torch.device("meta"):
                adaptor = build_adaptor(kind, unet, "stage1", VIT_G14_WIDTH)
            light = count_light(unet, TOKENS, adaptor, VIT_G14_WIDTH)
            counts[name]["adaptors"][kind] = {k: v.to_json() for k, v in light.items()}
            counts[name]["adaptors"][kind]["parameters"] = sum(
                p.numel() for p in adaptor.parameters()
            )
    return counts


def test_parameters(counted):
    assert counted["sd"]["parameters"] == 859_520_964
    assert counted["efficient"]["parameters"] == 846_789_764
    assert counted["sd"]["adaptors"]["resnet"]["parameters"] == pytest.approx(
        14e6, rel=0.01
    )


def test_calls_of_the_sd_unet(counted):
    sd = counted["sd"]
    assert sd["full"]["flops"] == pytest.approx(677.8e9, rel=0.001)
    assert sd["full"]["flops_with_attention"] == pytest.approx(803.8e9, rel=0.001)
    identity = sd["adaptors"]["identity"]
    assert identity["step"]["flops"] == pytest.approx(228.4e9, rel=0.01)
    assert identity["step_after_upsampler"]["flops"] == pytest.approx(198e9, rel=0.01)


@pytest.mark.parametrize("backbone", TABLE_1)
def test_table_1(counted, backbone):
    guidance = 7.5 if BACKBONES[backbone].guided else 1.0
    sampler = {"steps": 8, "guidance": guidance}
    plain, clocked = (
        run_flops(
            {"adaptor": "resnet", "sampler": {**sampler, "clock": clock}},
            counted[backbone],
            "flops",
        )
        for clock in (1, 2)
    )
    published, published_clocked = TABLE_1[backbone]
    assert plain == pytest.approx(published * 1e12, rel=0.01)
    if published_clocked is not None:
        assert clocked == pytest.approx(published_clocked * 1e12, rel=0.01)


def test_table_1_has_every_backbone_of_the_paper():
    assert set(TABLE_1) == {n for n, b in BACKBONES.items() if not b.competitor}


@pytest.mark.parametrize("row", COMPETITORS)
def test_table_1_counts_attention_products_of_competitors_alone(counted, row):
    published, backbone, steps, samples = COMPETITORS[row]
    sampler = {"steps": steps, "guidance": 7.5 if samples == 2 else 1.0}
    run = {"adaptor": "", "sampler": sampler}
    # Half of the last printed digit: the recounts round to what is printed.
    with_products = run_flops(run, counted[backbone], "flops_with_attention")
    assert with_products == pytest.approx(published * 1e12, abs=0.05e12)
    without = run_flops(run, counted[backbone], "flops")
    assert without != pytest.approx(published * 1e12, abs=0.05e12)


@pytest.mark.parametrize("backbone", [n for n, b in BACKBONES.items() if b.competitor])
def test_competitors_run_their_guidance_as_in_table_1(backbone):
    samples = {row[1]: row[3] for row in COMPETITORS.values()}
    assert BACKBONES[backbone].samples_per_step == samples[backbone]


def test_bk_sdm_has_the_parameters_of_its_model_card(counted):
    """The card rounds up to 0.01B: 482.3M are printed as 0.49B."""
    card = {"bk_sdm_base": 580e6, "bk_sdm_small": 490e6, "bk_sdm_tiny": 330e6}
    for name, parameters in card.items():
        assert 0 <= parameters - counted[name]["parameters"] < 10e6, name


def test_bk_sdm_saves_what_it_says_of_the_macs(counted):
    """Its abstract: 30 to 50 % less; Base 34, Small 36, Tiny 39 % by our count."""
    full = counted["sd"]["full"]["macs"]
    savings = [
        1 - counted[f"bk_sdm_{size}"]["full"]["macs"] / full
        for size in ("base", "small", "tiny")
    ]
    assert savings == pytest.approx([0.339, 0.357, 0.395], abs=0.001)


def test_the_distilled_row_prints_fewer_flops_than_its_own_table_3_adds_up_to(counted):
    """2.9 T is printed; the paper's 301 GFLOPs per call at batch 2 make it 2.98 T."""
    full = counted["distilled"]["full"]["flops"]
    light = counted["distilled"]["adaptors"]["resnet"]["step"]["flops"]
    assert 4 * (full + light) == pytest.approx(4 * (1187e9 + 301e9) / 2, rel=0.001)


# Table 3: GFLOPs of one call of the Efficient UNet at batch 2, and its parameters.
TABLE_3 = {
    ("identity", "stage1"): (287, 0.02, 0),
    ("resnet", "stage1"): (301, 0.02, 14e6),
    ("unet", "stage1"): (324, 0.05, 152e6),
    ("unet_light", "stage1"): (289, 0.05, 3e6),
    ("resnet", "stage2"): (734, 0.02, None),
}


@pytest.fixture(scope="module")
def efficient():
    return build_unet("efficient")


def call_at_batch_2(unet, kind: str, cut: str, **options) -> tuple[float, int]:
    """Return GFLOPs of an adaptor step and the adaptor's parameters."""
    with torch.device("meta"):
        adaptor = build_adaptor(kind, unet, cut, VIT_G14_WIDTH, **options)
    light = count_light(unet, TOKENS, adaptor, VIT_G14_WIDTH)["step"]
    return 2 * light.flops / 1e9, sum(p.numel() for p in adaptor.parameters())


@pytest.mark.parametrize(("kind", "cut"), TABLE_3)
def test_table_3(efficient, kind, cut):
    gflops, tolerance, parameters = TABLE_3[kind, cut]
    counted, size = call_at_batch_2(efficient, kind, cut)
    assert counted == pytest.approx(gflops, rel=tolerance)
    if parameters is not None:
        assert size == pytest.approx(parameters, rel=0.05)


def test_the_full_call_of_table_3(efficient):
    counted = 2 * count_full(efficient, TOKENS).flops
    assert counted == pytest.approx(1187e9, rel=0.02)


def test_the_default_adaptor_is_the_one_that_was_counted_first(efficient):
    _, size = call_at_batch_2(efficient, "resnet", "stage1")
    assert size == 13_941_376


def test_table_s2_gives_every_choice_of_inputs_the_same_cost():
    """The table prints 150 GFLOPs at batch 1, which is that of all three inputs."""
    unet = build_unet("distilled")
    sizes = {}
    for inputs in (("r_in",), ("r_out",), ("r_in", "r_out"), ("r_in", "r_out", "text")):
        twice, sizes[inputs] = call_at_batch_2(unet, "resnet", "stage1", inputs=inputs)
        assert twice / 2 == pytest.approx(150, rel=0.02)
    # What is left out has no weights: 320 or 640 channels, and the text's projection.
    whole = sizes["r_in", "r_out", "text"]
    assert whole - sizes["r_in", "r_out"] == VIT_G14_WIDTH * 384 + 384
    assert sizes["r_in", "r_out"] - sizes["r_out",] == 320 * 384 * 9
    assert sizes["r_in", "r_out"] - sizes["r_in",] == 640 * 384 * 9


def test_figure_s1_to_every_printed_digit():
    for name, count in count_blocks(build_unet("sd"), TOKENS).items():
        parameters, gmacs = FIGURE_S1[name]
        assert _like(parameters, count.parameters / 1e6) == parameters, name
        assert _like(gmacs, count.macs / 1e9) == gmacs, name


def _like(printed: str, value: float) -> str:
    """Format a value with the decimals of a printed one.

    The profiler prints two decimals, and the paper rounds those, half up: 31.449 became
    31.45 and then 31.5.
    """
    decimals = Decimal(1).scaleb(-len(printed.partition(".")[2]))
    profiled = Decimal(f"{value:.2f}")
    return str(profiled.quantize(decimals, rounding=ROUND_HALF_UP))


def test_profiling_leaves_torch_as_it_was():
    before = (torch.mm, torch.addmm, torch.nn.functional.linear)
    unet = build_unet("sd")
    count_full(unet, TOKENS)
    assert before == (torch.mm, torch.addmm, torch.nn.functional.linear)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in unet.modules())


# --- whole loops ---------------------------------------------------------------------


class Injected:
    """Attention whose queries and keys are the first row's, for all rows."""

    def __call__(self, attn, hidden, encoder_hidden_states=None, **_):
        text = hidden if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = attn.to_q(hidden), attn.to_k(text), attn.to_v(text)
        query, key = (rows[:1].expand_as(rows) for rows in (query, key))
        query, key, value = (
            rows.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for rows in (query, key, value)
        )
        mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value)
        return attn.to_out[0](mixed.transpose(1, 2).flatten(2))


BATCH, LOOP, EVERY = 3, 5, 2


@pytest.fixture
def small(unet) -> dict:
    """Return counts of single calls at batch 1 of a random UNet of SD's topology."""
    counts = {"full": count_full(unet, 5).to_json(), "adaptors": {}}
    for kind in ("identity", "resnet"):
        light = count_light(unet, 5, build_adaptor(kind, unet, "stage1", 12), 12)
        counts["adaptors"][kind] = {
            name: each.to_json() for name, each in light.items()
        }
    return counts


def loop(unet, light):
    """Return a loop that makes its passes by the clock, at a batch of its own."""
    split = SplitUNet(unet)
    x, t, c = (
        torch.zeros(BATCH, 4, 16, 16),
        torch.tensor(500),
        torch.zeros(BATCH, 5, 24),
    )

    def run() -> None:
        step, latent = None, x
        for index in range(LOOP):
            if index % EVERY == 0:
                step = split.full(latent, t, c)
            else:
                step = light(split, latent, t, c, step)
            # A sampler's arithmetic is none of the UNet's.
            latent = torch.add(torch.mul(latent, 0.9), step.eps)

    return run


def reuse(split, x, t, c, step):
    return split.reuse(x, t, c, step.up, step.r_out)


def adapt_by(adaptor):
    """Return a light pass with an adaptor."""
    pooled = torch.zeros(BATCH, 12)

    def light(split, x, t, c, step):
        return split.adapt(x, t, c, step.r_out, adaptor, pooled)

    return light


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("identity", "step"),
        ("identity", "step_after_upsampler"),
        ("resnet", "step"),
    ],
)
def test_a_loop_costs_what_its_passes_cost(unet, small, kind, name):
    adaptor = build_adaptor(kind, unet, "stage1", 12)
    light = adapt_by(adaptor) if name == "step" else reuse
    counted = count_calls(loop(unet, light), unet, adaptor)
    full, step = small["full"], small["adaptors"][kind][name]
    # Full passes at steps 1, 3 and 5.
    for key in ("flops", "flops_with_attention", "macs"):
        assert getattr(counted, key) == BATCH * (3 * full[key] + 2 * step[key])
    used = [*unet.parameters(), *adaptor.parameters()]
    assert counted.parameters == sum(parameter.numel() for parameter in used)


def test_what_is_not_asked_for_is_not_counted(unet, small):
    adaptor = build_adaptor("resnet", unet, "stage1", 12)
    calls = loop(unet, adapt_by(adaptor))
    alone, both = count_calls(calls, adaptor), count_calls(calls, unet, adaptor)
    light = small["adaptors"]
    own = light["resnet"]["step"]["flops"] - light["identity"]["step"]["flops"]
    assert alone.flops == BATCH * 2 * own > 0
    assert count_calls(calls, unet).flops == both.flops - alone.flops
    with pytest.raises(ValueError, match="0 modules to count"):
        count_calls(calls)


def test_another_attention_processor_is_counted_alike(unet, small):
    unet = copy.deepcopy(unet)
    unet.set_attn_processor(Injected())
    x, c = torch.zeros(BATCH, 4, 16, 16), torch.zeros(BATCH, 5, 24)
    counted = count_calls(lambda: unet(x, 500, c), unet)
    for key in ("flops", "flops_with_attention", "macs"):
        assert getattr(counted, key) == BATCH * small["full"][key]
    assert counted.flops < counted.flops_with_attention


def test_a_hook_that_exchanges_an_output_costs_nothing(unet, small):
    unet = copy.deepcopy(unet)
    unet.up_blocks[1].resnets[1].conv2.register_forward_hook(
        lambda _module, _inputs, output: output[:1].expand_as(output)
    )
    x, c = torch.zeros(BATCH, 4, 16, 16), torch.zeros(BATCH, 5, 24)
    counted = count_calls(lambda: unet(x, 500, c), unet)
    assert counted.flops == BATCH * small["full"]["flops"]


def test_counting_what_fails_leaves_torch_as_it_was(unet):
    before = (torch.mm, torch.addmm, torch.nn.functional.linear)

    def fail() -> None:
        unet(torch.zeros(1, 4, 16, 16), 500, torch.zeros(1, 5, 24))
        raise RuntimeError("aborted")

    with pytest.raises(RuntimeError, match="aborted"):
        count_calls(fail, unet)
    assert before == (torch.mm, torch.addmm, torch.nn.functional.linear)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in unet.modules())


def test_sdxl_and_lcm_are_those_published():
    """2.567B parameters and 2.99 TMACs a call: SDXL's own figures."""
    rows = other_unets.rows_of(
        other_unets.Run(
            "SDXL",
            "sdxl",
            4,
            2,
            77,
            clocks=(2,),
            cuts=("stage1",),
            adaptors=("identity",),
        )
    )
    whole, light = rows
    assert whole["parameters"] == pytest.approx(2567.46, abs=0.01)
    assert whole["tflops"] / 8 == pytest.approx(5.98, abs=0.01)
    # Half of the steps are light; without the upsampler they cost less.
    saved = 4 * (whole["tflops"] / 8 - light["gflops_light"] / 1e3)
    assert light["tflops"] == pytest.approx(whole["tflops"] - saved)
    assert light["tflops_kept"] < light["tflops"] < light["tflops_with_attention"]
    assert light["saved"] == pytest.approx(
        100 * (1 - light["tflops"] / whole["tflops"])
    )
    (lcm,) = other_unets.rows_of(
        other_unets.Run("LCM", "lcm", 4, 1, 77, clocks=(), cuts=(), adaptors=())
    )
    # SD v1.5's, and the projection of its guidance.
    assert lcm["parameters"] == pytest.approx(859.52 + 256 * 320 / 1e6, abs=0.01)
    with pytest.raises(ValueError, match="unet 'flux' is not one of sd, sdxl, lcm"):
        other_unets.rows_of(other_unets.Run("F", "flux", 1, 1, 77, (), (), ()))
