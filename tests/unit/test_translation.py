"""One loop for all tasks: against DDIM's formula and against diffusers' pipelines."""

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import (
    ControlNetModel,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPipeline,
)

from clockwork_diffusion import adaptors, encoding, schedulers
from clockwork_diffusion.depth_skip import depth_skip
from clockwork_diffusion.encoding import encode_images
from clockwork_diffusion.passes import Passes, WholePasses
from clockwork_diffusion.schedulers import SOLVERS, scheduler_at
from clockwork_diffusion.stablesr.pipeline import StableSRPipeline
from clockwork_diffusion.stablesr.spade import SpadeUNet
from clockwork_diffusion.stablesr.structure_encoder import StructureEncoder
from clockwork_diffusion.timesteps import uniform_timesteps
from clockwork_diffusion.unet import SplitUNet
from clockwork_experiments.generate import translate, translators
from clockwork_experiments.generate.tasks import TASKS, Row
from clockwork_experiments.generate.text import (
    SamplerSpec,
    draw_noise,
    initial_noise,
    sample_latents,
    step_generators,
)
from clockwork_experiments.generate.translate import TranslationSpec
from clockwork_experiments.mini.data import scene_images
from clockwork_experiments.mini.translators import widen_input
from clockwork_experiments.models import loading

MODEL = Path(__file__).parents[2] / "resources" / "mini" / "stable-diffusion"
STEPS = (999, 700, 320, 40)
PROMPTS = ["make the red star blue", "turn the ring into a cross"]


class Listed(DPMSolverMultistepScheduler):
    """Visits `STEPS`, whatever number a pipeline asks for."""

    def set_timesteps(self, num_inference_steps=None, device=None, **kwargs):
        super().set_timesteps(device=device, timesteps=list(STEPS))


@pytest.fixture(scope="module")
def pipe() -> StableDiffusionPipeline:
    return loading.load_pipeline(MODEL)


@pytest.fixture(scope="module")
def joined(pipe) -> StableDiffusionPipeline:
    """Return a pipeline whose UNet takes eight channels, the last four at random."""
    unet = widen_input(pipe.unet, 4).eval().requires_grad_(False)
    torch.manual_seed(1)
    unet.conv_in.weight[:, 4:].normal_(std=0.1)
    return of_unet(pipe, unet)


@pytest.fixture(scope="module")
def controlnet(pipe) -> ControlNetModel:
    torch.manual_seed(2)
    net = ControlNetModel.from_unet(
        pipe.unet, conditioning_embedding_out_channels=(8, 16, 16)
    )
    net.eval().requires_grad_(False)
    for layer in (*net.controlnet_down_blocks, net.controlnet_mid_block):
        layer.weight.normal_(std=0.1)
    net.controlnet_cond_embedding.conv_out.weight.normal_(std=2.0)
    return net


@pytest.fixture(scope="module")
def restoring(pipe) -> StableSRPipeline:
    torch.manual_seed(3)
    unet = SpadeUNet.from_unet(pipe.unet, structure_channels=16)
    encoder = StructureEncoder(
        block_out_channels=(16, 16, 32, 32),
        attention=(False, False, True, False),
        structure_channels=16,
        heads=2,
        norm_num_groups=8,
    )
    # What starts at zero would hide what the structure does.
    for parameter in (*unet.parameters(), *encoder.parameters()):
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    whole = StableSRPipeline(
        vae=pipe.vae,
        text_encoder=pipe.text_encoder,
        tokenizer=pipe.tokenizer,
        unet=unet.eval().requires_grad_(False),
        structure_encoder=encoder.eval().requires_grad_(False),
        scheduler=pipe.scheduler,
        upscale=1,
    )
    whole.set_progress_bar_config(disable=True)
    return whole


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return scene_images("test", 2)


@pytest.fixture(scope="module")
def noise() -> torch.Tensor:
    return initial_noise([3, 4], (4, 16, 16))


def of_unet(pipe, unet) -> StableDiffusionPipeline:
    return StableDiffusionPipeline(
        vae=pipe.vae,
        text_encoder=pipe.text_encoder,
        tokenizer=pipe.tokenizer,
        unet=unet,
        scheduler=pipe.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def spec_of(task: str, **changed) -> TranslationSpec:
    settings = {"task": task, "steps": len(STEPS), "timesteps": STEPS, **changed}
    return TranslationSpec(**settings)


def run(translator, images, noise, spec, passes=None, prompts=PROMPTS, **further):
    passes = passes or WholePasses(translator.pipe.unet)
    encoded = translator.encode(prompts)
    return translate.translate(
        translator, passes, images, encoded, noise, spec, **further
    )


def all_translators(joined, pipe, controlnet, restoring):
    made = {task: translators.JoinedTranslator(joined, task) for task in JOINED}
    made["control"] = translators.ControlTranslator(pipe, controlnet)
    made["restoration"] = translators.RestorationTranslator(restoring, 0.0)
    made["text"] = translators.TextTranslator(pipe)
    return made


JOINED = translators.JOINED
GUIDED = {
    "edit": {"guidance": 7.5, "image_guidance": 1.5},
    "control": {"guidance": 9.0},
    "restoration": {},
    "inpainting": {},
    "synthesis": {},
    "text": {"guidance": 3.0},
}


# --- timesteps and schedulers ---------------------------------------------------------


def test_uniform_timesteps_are_those_of_the_paper():
    assert uniform_timesteps(5) == (999, 749, 499, 249, 0)
    assert uniform_timesteps(10) == (
        *(999, 888, 777, 666, 555),
        *(444, 333, 222, 111, 0),
    )
    for steps in (2, 20, 50):
        whole = [int(999 * i / (steps - 1) + 1e-9) for i in range(steps)]
        assert uniform_timesteps(steps) == tuple(reversed(whole))
    assert uniform_timesteps(1) == (999,)
    assert len(set(uniform_timesteps(1000))) == 1000


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_first_order_is_ddim_and_ends_with_the_clean_image(kind, scheduler_config):
    config = {**scheduler_config, "prediction_type": kind}
    scheduler = scheduler_at("ddim", config, STEPS)
    alphas = scheduler.alphas_cumprod.double()
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(2, 4, 8, 8, generator=generator)
    wanted = x.double()
    for t, after in zip(STEPS, (*STEPS[1:], None), strict=True):
        output = torch.randn(2, 4, 8, 8, generator=generator)
        x = scheduler.step(output, t, x, return_dict=False)[0]
        a, s = alphas[t].sqrt(), (1 - alphas[t]).sqrt()
        if kind == "epsilon":
            clean, eps = (wanted - s * output) / a, output.double()
        else:
            clean, eps = a * wanted - s * output, a * output + s * wanted
        if after is not None:
            b = alphas[after]
            wanted = b.sqrt() * clean + (1 - b).sqrt() * eps
    assert torch.allclose(x.double(), clean, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_stochastic_is_ddim_with_eta_1_and_ends_with_the_clean_image(
    kind, scheduler_config
):
    config = {**scheduler_config, "prediction_type": kind}
    scheduler = scheduler_at("ddim_stochastic", config, STEPS)
    alphas = scheduler.alphas_cumprod.double()
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(2, 4, 8, 8, generator=generator)
    wanted = x.double()
    for t, after in zip(STEPS, (*STEPS[1:], None), strict=True):
        output = torch.randn(2, 4, 8, 8, generator=generator)
        z = torch.randn(2, 4, 8, 8, generator=generator)
        x = scheduler.step(output, t, x, variance_noise=z, return_dict=False)[0]
        a, s = alphas[t].sqrt(), (1 - alphas[t]).sqrt()
        if kind == "epsilon":
            clean, eps = (wanted - s * output) / a, output.double()
        else:
            clean, eps = a * wanted - s * output, a * output + s * wanted
        if after is not None:
            # Song et al. 2021, equations 12 and 16.
            b = alphas[after]
            variance = (1 - b) / (1 - alphas[t]) * (1 - alphas[t] / b)
            assert variance > 1e-3
            wanted = b.sqrt() * clean + (1 - b - variance).sqrt() * eps
            wanted = wanted + variance.sqrt() * z
            assert torch.allclose(x.double(), wanted, rtol=1e-4, atol=1e-4)
    assert torch.allclose(x.double(), clean, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_stochastic_is_that_of_diffusers_at_its_own_timesteps(kind, scheduler_config):
    config = {**scheduler_config, "prediction_type": kind}
    theirs = DDIMScheduler.from_config(
        config,
        # By name: of the mapping diffusers overlooks what was a default.
        prediction_type=kind,
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="leading",
        steps_offset=0,
    )
    theirs.set_timesteps(5)
    steps = theirs.timesteps.tolist()
    assert steps == [800, 600, 400, 200, 0]
    ours = scheduler_at("ddim_stochastic", config, steps)
    generator = torch.Generator().manual_seed(6)
    x = y = torch.randn(2, 4, 8, 8, generator=generator)
    for t in ours.timesteps:
        output = torch.randn(2, 4, 8, 8, generator=generator)
        z = torch.randn(2, 4, 8, 8, generator=generator)
        x = ours.step(output, t, x, variance_noise=z, return_dict=False)[0]
        y = theirs.step(output, t, y, eta=1.0, variance_noise=z, return_dict=False)[0]
        assert torch.allclose(x, y, rtol=1e-3, atol=1e-3), int(t)


def test_second_order_looks_back_on_the_step_before(scheduler_config):
    made = {}
    for kind in SOLVERS:
        scheduler = scheduler_at(kind, scheduler_config, STEPS)
        assert tuple(scheduler.timesteps.tolist()) == STEPS
        x = torch.ones(1, 1, 1, 1)
        made[kind] = []
        for t in scheduler.timesteps:
            x = scheduler.step(0.5 * x + t / 999, t, x, return_dict=False)[0]
            made[kind].append(float(x))
    assert made["ddim"][0] == made["dpmpp"][0]
    assert made["ddim"][1] != made["dpmpp"][1]


def test_a_model_that_chooses_timesteps_itself_takes_ours(scheduler_config):
    config = {**scheduler_config, "use_karras_sigmas": True, "solver_order": 3}
    scheduler = scheduler_at("ddim", config, STEPS)
    assert tuple(scheduler.timesteps.tolist()) == STEPS
    assert scheduler.config.solver_order == 1


# --- rows -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "settings", "rows"),
    [
        ("edit", {"guidance": 7.5, "image_guidance": 1.5}, [(0, 0), (1, 0), (1, 1)]),
        ("edit", {"guidance": 7.5}, [(1, 0), (1, 1)]),
        ("edit", {"guidance": 7.5, "all_rows": True}, [(0, 0), (1, 0), (1, 1)]),
        ("edit", {"guidance": 2.0, "image_guidance": 2.0}, [(0, 0), (1, 1)]),
        ("edit", {}, [(1, 1)]),
        ("control", {"guidance": 9.0}, [(1, 0), (1, 1)]),
        ("control", {}, [(1, 1)]),
        ("restoration", {}, [(1, 0)]),
        ("inpainting", {}, [(1, 0)]),
        ("synthesis", {"all_rows": True}, [(1, 0)]),
        ("text", {"guidance": 2.0}, [(0, 0), (0, 1)]),
        ("text", {}, [(0, 1)]),
    ],
)
def test_rows_without_a_weight_are_left_out(task, settings, rows):
    spec = TranslationSpec(task, 4, **settings)
    assert spec.rows == tuple(Row(bool(i), bool(t)) for i, t in rows)
    assert spec.branches == len(rows)


def test_guidance_is_the_published_formula():
    e = torch.tensor([[1.0], [3.0], [10.0]])
    both = TranslationSpec("edit", 4, 7.5, 1.5)
    assert both.guide(e).item() == 1 + 7.5 * (10 - 3) + 1.5 * (3 - 1)
    control = TranslationSpec("control", 4, 9.0)
    assert control.guide(e[1:]).item() == 3 + 9 * (10 - 3)
    assert TranslationSpec("text", 4, 2.0).guide(e[1:]).item() == 3 + 2 * (10 - 3)
    assert TranslationSpec("inpainting", 4).guide(e[:1]).item() == 1


@pytest.mark.parametrize(
    ("text", "image"), [(7.5, 1.0), (2.0, 2.0), (1.0, 1.0)], ids=str
)
def test_leaving_rows_out_changes_nothing(joined, images, noise, text, image):
    translator = translators.JoinedTranslator(joined, "edit")
    scales = {"guidance": text, "image_guidance": image}
    less = run(translator, images, noise, spec_of("edit", **scales))
    more = run(translator, images, noise, spec_of("edit", **scales, all_rows=True))
    assert torch.allclose(less, more, atol=1e-3)
    other = spec_of("edit", guidance=text + 1, image_guidance=image)
    assert not torch.allclose(less, run(translator, images, noise, other), atol=1e-2)


# --- against diffusers ----------------------------------------------------------------


def listed(pipe) -> Listed:
    config = scheduler_at("ddim", pipe.scheduler.config, STEPS).config
    return Listed.from_config(config)


def test_an_edit_is_that_of_diffusers(joined, images, noise):
    theirs = StableDiffusionInstructPix2PixPipeline(
        vae=joined.vae,
        text_encoder=joined.text_encoder,
        tokenizer=joined.tokenizer,
        unet=joined.unet,
        scheduler=listed(joined),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    theirs.set_progress_bar_config(disable=True)
    wanted = theirs(
        PROMPTS,
        image=images.float() / 255,
        num_inference_steps=len(STEPS),
        guidance_scale=7.5,
        image_guidance_scale=1.5,
        latents=noise.clone(),
        output_type="pt",
    ).images
    translator = translators.JoinedTranslator(joined, "edit")
    spec = spec_of("edit", guidance=7.5, image_guidance=1.5)
    latents = run(translator, images, noise, spec)
    found = translator.decode(latents, images)
    assert (found.float() / 255 - wanted).abs().max() <= 0.51 / 255


def test_drawing_along_edges_is_that_of_diffusers(pipe, controlnet, images, noise):
    theirs = StableDiffusionControlNetPipeline(
        vae=pipe.vae,
        text_encoder=pipe.text_encoder,
        tokenizer=pipe.tokenizer,
        unet=pipe.unet,
        controlnet=controlnet,
        scheduler=listed(pipe),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    theirs.set_progress_bar_config(disable=True)
    wanted = theirs(
        PROMPTS,
        image=images.float() / 255,
        num_inference_steps=len(STEPS),
        guidance_scale=9.0,
        latents=noise.clone(),
        output_type="latent",
    ).images
    translator = translators.ControlTranslator(pipe, controlnet)
    found = run(translator, images, noise, spec_of("control", guidance=9.0))
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("clock", [1, 2])
def test_text_to_image_is_that_of_the_sampler(pipe, images, noise, clock):
    # So that the sampler, too, ends with the clean image of its last timestep.
    config = {**pipe.scheduler.config, "set_alpha_to_one": True}
    plain = SamplerSpec("ddim", 4, 3.0, clock)
    scheduler = schedulers.new_scheduler("ddim", config, plain.steps)
    assert scheduler.config.timestep_spacing != "trailing"
    timesteps = tuple(scheduler.timesteps.tolist())
    identity = adaptors.build_adaptor("identity", pipe.unet, "stage1", 1)
    passes = Passes(SplitUNet(pipe.unet), identity)
    prompts = encoding.encode_prompts(pipe, PROMPTS)
    wanted = sample_latents(passes, config, prompts, noise, plain)
    translator = translators.TextTranslator(pipe)
    spec = spec_of("text", timesteps=timesteps, guidance=3.0, clock=clock)
    found = run(translator, torch.zeros_like(images), noise, spec, passes)
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-4)
    decoded = translator.decode(found, images)
    assert torch.equal(decoded, encoding.decode_latents(pipe, found))


def test_restoration_is_that_of_its_pipeline(restoring, images):
    wanted = restoring(
        images.float() / 255,
        timesteps=STEPS,
        fidelity_weight=0.0,
        generator=[torch.Generator().manual_seed(seed) for seed in (3, 4)],
        output_type="pt",
    ).images
    noise = initial_noise([3, 4], (4, 16, 16))
    translator = translators.RestorationTranslator(restoring, 0.0)
    latents = run(translator, images, noise, spec_of("restoration"), None, ["", ""])
    found = translator.decode(latents, images)
    assert (found.float() / 255 - wanted).abs().max() <= 0.51 / 255


@pytest.mark.parametrize("task", ["inpainting", "synthesis"])
def test_other_joined_tasks_see_the_input_and_the_empty_prompt(
    joined, images, noise, task
):
    translator = translators.JoinedTranslator(joined, task)
    found = run(translator, images, noise, spec_of(task))
    scheduler = scheduler_at("ddim", joined.scheduler.config, STEPS)
    given = encode_images(joined.vae, images, scale=False)
    empty = encoding.encode_prompts(joined, ["", ""]).text
    x = noise
    with torch.inference_mode():
        for t in scheduler.timesteps:
            v = joined.unet(torch.cat([x, given], 1), t, empty)[0]
            x = scheduler.step(v, t, x, return_dict=False)[0]
    assert torch.allclose(found, x, atol=1e-4)


# --- what every task shares -----------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_an_image_depends_on_neither_batch_nor_neighbour(
    joined, pipe, controlnet, restoring, images, noise, task
):
    translator = all_translators(joined, pipe, controlnet, restoring)[task]
    spec = spec_of(task, **GUIDED[task])
    whole = run(translator, images, noise, spec)
    alone = run(translator, images[1:], noise[1:], spec, None, PROMPTS[1:])
    assert torch.allclose(whole[1:], alone, atol=1e-3)
    assert not torch.allclose(whole[:1], alone, atol=1e-1)


@pytest.mark.parametrize("task", ["edit", "restoration"])
def test_drawn_noise_depends_on_neither_batch_nor_neighbour(
    joined, pipe, controlnet, restoring, images, noise, task
):
    translator = all_translators(joined, pipe, controlnet, restoring)[task]
    spec = spec_of(task, **GUIDED[task], scheduler="ddim_stochastic")

    def draw(rows, seeds):
        generators = step_generators(seeds, (4, 16, 16))
        return run(
            *(translator, images[rows], noise[rows], spec, None, PROMPTS[rows]),
            generators=generators,
        )

    whole = draw(slice(2), [3, 4])
    assert torch.equal(whole, draw(slice(2), [3, 4]))
    assert torch.allclose(whole[1:], draw(slice(1, 2), [4]), atol=1e-3)
    # The same start and other noise at the steps.
    other = draw(slice(2), [3, 5])
    assert torch.allclose(whole[:1], other[:1], atol=1e-3)
    assert not torch.allclose(whole[1:], other[1:], atol=1e-1)
    same = run(translator, images, noise, spec_of(task, **GUIDED[task]))
    assert not torch.allclose(whole, same, atol=1e-1)


def test_noise_of_steps_is_not_that_of_the_start():
    shape = (4, 32, 32)
    generators = step_generators([0, 1, 7_000_000], shape)
    start = initial_noise([0, 1, 7_000_000], shape)
    drawn = [draw_noise(generators, shape) for _ in range(3)]
    rows = torch.cat([start, *drawn]).flatten(1)
    assert (torch.corrcoef(rows) - torch.eye(len(rows))).abs().max() < 0.1


@pytest.mark.parametrize("seeds", [(), (3,), (3, 4, 5)])
def test_a_stochastic_scheduler_needs_a_generator_for_each_image(
    joined, images, noise, seeds
):
    translator = translators.JoinedTranslator(joined, "inpainting")
    spec = spec_of("inpainting", scheduler="ddim_stochastic")
    generators = step_generators(seeds, (4, 16, 16)) if seeds else []
    match = f"{len(seeds)} generators are not one for each of 2 images"
    with pytest.raises(ValueError, match=match):
        run(translator, images, noise, spec, generators=generators)


@pytest.mark.parametrize("task", TASKS)
def test_the_input_image_matters(
    joined, pipe, controlnet, restoring, images, noise, task
):
    translator = all_translators(joined, pipe, controlnet, restoring)[task]
    spec = spec_of(task, **GUIDED[task])
    one = run(translator, images, noise, spec)
    other = run(translator, images.flip(0), noise, spec)
    # Of text-to-image's the size alone.
    assert torch.allclose(one, other, atol=1e-2) == (task == "text")


@pytest.mark.parametrize("task", TASKS)
def test_level_and_clock_compose(
    joined, pipe, controlnet, restoring, images, noise, task
):
    translator = all_translators(joined, pipe, controlnet, restoring)[task]
    unet, settings = translator.pipe.unet, GUIDED[task]
    whole = run(translator, images, noise, spec_of(task, **settings))
    full = Passes(SplitUNet(depth_skip(unet, 13)))
    same = run(translator, images, noise, spec_of(task, **settings), full)
    assert torch.equal(whole, same)

    cut = depth_skip(unet, 9)
    shallow = run(
        translator, images, noise, spec_of(task, **settings), WholePasses(cut)
    )
    assert not torch.allclose(whole, shallow, atol=1e-3)
    counted = Counted(Passes(SplitUNet(cut)))
    split = run(translator, images, noise, spec_of(task, **settings), counted)
    assert torch.allclose(split, shallow, atol=1e-4)
    assert counted.calls == ["full"] * 4

    identity = adaptors.build_adaptor("identity", cut, "stage1", 1)
    counted = Counted(Passes(SplitUNet(cut), identity))
    spec = spec_of(task, **settings, clock=2)
    clocked = run(translator, images, noise, spec, counted)
    assert counted.calls == ["full", "light", "full", "light"]
    assert counted.rows == {2 * spec.branches}
    assert not torch.allclose(clocked, shallow, atol=1e-4)
    assert clocked.isfinite().all()


class Counted:
    """Passes that are counted, with the rows of their batches."""

    def __init__(self, passes) -> None:
        self.passes, self.calls, self.rows = passes, [], set()
        self.unet, self.history, self.check = passes.unet, 1, passes.check
        self.keep = passes.keep

    def full(self, x, *args, **kwargs):
        self.calls.append("full")
        self.rows.add(len(x))
        return self.passes.full(x, *args, **kwargs)

    def light(self, x, *args, **kwargs):
        self.calls.append("light")
        self.rows.add(len(x))
        return self.passes.light(x, *args, **kwargs)


def test_each_step_is_reported_with_its_latents(joined, images, noise):
    translator = translators.JoinedTranslator(joined, "inpainting")
    seen = []
    passes = WholePasses(joined.unet)
    latents = translate.translate(
        translator,
        passes,
        images,
        translator.encode(["", ""]),
        noise,
        spec_of("inpainting"),
        lambda *step: seen.append(step),
    )
    assert [(index, t) for index, t, _ in seen] == list(enumerate(STEPS))
    assert torch.equal(seen[-1][2], latents)


# --- wrong input ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "draw"}, "task 'draw' is not one of edit, control, restoration"),
        ({"scheduler": "heun"}, "scheduler 'heun' is not one of ddim, dpmpp"),
        ({"steps": 0}, "step count 0 is less than 1"),
        ({"guidance": 0.5}, "guidance 0.5 is less than 1"),
        ({"image_guidance": 0.5}, "image_guidance 0.5 is less than 1"),
        ({"task": "control", "image_guidance": 1.5}, "image_guidance 1.5 is for edit"),
        ({"task": "inpainting", "guidance": 2.0}, "guidance 2.0 is for edit, control"),
        ({"timesteps": (999, 0)}, "2 timesteps are not 3 steps"),
        ({"timesteps": (999, 500, 500)}, "500 comes after 500"),
        ({"timesteps": (0, 500, 999)}, "500 comes after 0"),
        ({"timesteps": (1000, 500, 0)}, "timestep 1000 is not one of 0 to 999"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        TranslationSpec(**{"task": "edit", "steps": 3, **settings})
    assert "\n" not in str(caught.value)


def test_a_clock_needs_an_adaptor(joined, images, noise):
    translator = translators.JoinedTranslator(joined, "inpainting")
    with pytest.raises(ValueError, match="clock 2 needs an adaptor"):
        run(translator, images, noise, spec_of("inpainting", clock=2))


def test_a_translator_does_its_own_task(joined, images, noise):
    translator = translators.JoinedTranslator(joined, "inpainting")
    with pytest.raises(ValueError, match="for inpainting does no edit"):
        run(translator, images, noise, spec_of("edit"))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 3, 28, 64), "images are 64×28 pixels, and the model needs 32×32 or more"),
        ((2, 3, 64, 66), "images are 66×64 pixels, and the model needs multiples of 4"),
        ((2, 1, 64, 64), "not uint8"),
        ((2, 3, 32, 64), "do not fit 2 images, whose latents are .2, 4, 8, 16."),
    ],
)
def test_images_that_do_not_fit_are_refused(joined, noise, shape, message):
    translator = translators.JoinedTranslator(joined, "inpainting")
    images = torch.zeros(shape, dtype=torch.uint8)
    with pytest.raises(ValueError, match=message):
        run(translator, images, noise, spec_of("inpainting"))


def test_the_smallest_image_and_an_oblong_one_work(joined):
    translator = translators.JoinedTranslator(joined, "inpainting")
    for size in ((32, 32), (32, 48)):
        images = torch.zeros(1, 3, *size, dtype=torch.uint8)
        noise = initial_noise([1], translator.noise_shape(images))
        latents = run(translator, images, noise, spec_of("inpainting"), None, [""])
        assert translator.decode(latents, images).shape == images.shape


def test_channels_that_do_not_fit_are_refused(pipe, joined, controlnet):
    with pytest.raises(ValueError, match="edit needs a UNet of 8 .* this one has 4"):
        translators.JoinedTranslator(pipe, "edit")
    with pytest.raises(ValueError, match="control needs a UNet of 4 .* this one has 8"):
        translators.ControlTranslator(joined, controlnet)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"in_channels": 8}, "its in_channels is 8, the UNet's 4"),
        ({"cross_attention_dim": 32}, "its cross_attention_dim is 32"),
        ({"block_out_channels": (16, 32, 64, 64)}, "its block_out_channels is"),
        ({"conditioning_embedding_out_channels": (8, 16, 16, 16)}, "8 times smaller"),
    ],
)
def test_a_controlnet_of_another_unet_is_refused(pipe, controlnet, changed, message):
    config = {**controlnet.config, **changed}
    config.pop("norm_num_groups", None)
    other = ControlNetModel.from_config(config, norm_num_groups=8)
    with pytest.raises(ValueError, match=message) as caught:
        translators.ControlTranslator(pipe, other)
    assert "\n" not in str(caught.value)


# --- loading --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(joined, controlnet, restoring, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("translators")
    StableDiffusionInstructPix2PixPipeline(
        vae=joined.vae,
        text_encoder=joined.text_encoder,
        tokenizer=joined.tokenizer,
        unet=joined.unet,
        scheduler=joined.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder / "joined")
    controlnet.save_pretrained(folder / "controlnet")
    restoring.save_pretrained(folder / "restoration")
    return folder


def test_translators_come_back_from_disk(
    saved, joined, pipe, controlnet, restoring, images, noise
):
    made = all_translators(joined, pipe, controlnet, restoring)
    folders = {"control": "controlnet", "restoration": "restoration", "text": MODEL}
    for task in TASKS:
        spec = spec_of(task, **GUIDED[task])
        path = saved / folders.get(task, "joined")
        model = MODEL if task == "control" else None
        loaded = translators.load_translator(task, path, model)
        assert loaded.task == task
        # The folder's autoencoder is a plain one.
        assert getattr(loaded, "fidelity", 0.0) == 0.0
        wanted = run(made[task], images, noise, spec)
        assert torch.allclose(run(loaded, images, noise, spec), wanted, atol=1e-4)


@pytest.mark.parametrize(
    ("task", "path", "model", "message"),
    [
        ("draw", "joined", None, "task 'draw' is not one of"),
        ("edit", "joined", MODEL, "no other task has one"),
        ("text", MODEL, MODEL, "no other task has one"),
        ("text", "joined", None, "not a StableDiffusionPipeline"),
        ("control", "controlnet", None, "control needs the pipeline that it controls"),
        ("edit", "controlnet", None, "model_index.json does not exist"),
        ("edit", MODEL, None, "not a StableDiffusionInstructPix2PixPipeline"),
        ("control", MODEL / "unet", MODEL, "UNet2DConditionModel, not a ControlNet"),
        ("control", "none", MODEL, "none.config.json does not exist"),
    ],
)
def test_wrong_folders_are_named(saved, task, path, model, message):
    with pytest.raises(ValueError, match=message):
        translators.load_translator(task, saved / path, model)


def test_a_model_of_other_channels_is_named_with_its_folder(saved, tmp_path, joined):
    shutil.copytree(saved / "joined", tmp_path / "narrow")
    narrow = widen_input(joined.unet, 1)
    narrow.save_pretrained(tmp_path / "narrow" / "unet")
    with pytest.raises(ValueError, match="narrow: edit needs a UNet of 8 .* has 9"):
        translators.load_translator("edit", tmp_path / "narrow")
