"""Translating by pipelines: what each task asks, and DDIM's formula at given steps."""

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

from clockwork_diffusion import encoding
from clockwork_diffusion.depth_skip import depth_skip, depth_skipped
from clockwork_diffusion.encoding import encode_images
from clockwork_diffusion.pipeline import clockwork
from clockwork_diffusion.schedulers import new_scheduler, visiting
from clockwork_diffusion.stablesr.pipeline import StableSRPipeline
from clockwork_diffusion.stablesr.spade import SpadeUNet
from clockwork_diffusion.stablesr.structure_encoder import StructureEncoder
from clockwork_diffusion.timesteps import uniform_timesteps
from clockwork_experiments.generate import translators
from clockwork_experiments.generate.tasks import JOINED, TASKS
from clockwork_experiments.generate.text import SamplerSpec, initial_noise, sample
from clockwork_experiments.generate.translate import (
    SOLVERS,
    TranslationSpec,
    Translator,
)
from clockwork_experiments.mini.translators import widen_input
from clockwork_experiments.models import loading
from clockwork_experiments.world.data import scene_images

MODEL = Path(__file__).parents[2] / "resources" / "mini" / "stable-diffusion"
STEPS = (999, 700, 320, 40)
PROMPTS = ["make the red star blue", "turn the ring into a cross"]


@pytest.fixture(scope="module")
def pipe() -> StableDiffusionPipeline:
    return loading.load_pipeline(MODEL)


@pytest.fixture(scope="module")
def joined(pipe) -> StableDiffusionInstructPix2PixPipeline:
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


def of_unet(pipe, unet) -> StableDiffusionInstructPix2PixPipeline:
    made = StableDiffusionInstructPix2PixPipeline(
        **{**pipe.components, "unet": unet}, requires_safety_checker=False
    )
    made.set_progress_bar_config(disable=True)
    return made


def spec_of(task: str, **changed) -> TranslationSpec:
    settings = {"task": task, "steps": len(STEPS), "timesteps": STEPS, **changed}
    return TranslationSpec(**settings)


def run(translator, images, spec, seeds=(3, 4), prompts=PROMPTS):
    return translator.translate(images, prompts, seeds, spec)


def at(kind, config, timesteps):
    """Return the scheduler that a translation samples with."""
    own = new_scheduler("dpmpp", config, len(timesteps)).config
    solver = DPMSolverMultistepScheduler.from_config(own, **SOLVERS[kind])
    return visiting(solver, timesteps)


def controlled(pipe, controlnet) -> StableDiffusionControlNetPipeline:
    made = StableDiffusionControlNetPipeline(
        **pipe.components, controlnet=controlnet, requires_safety_checker=False
    )
    made.set_progress_bar_config(disable=True)
    return made


def all_translators(joined, pipe, controlnet, restoring):
    made = {task: Translator(task, joined) for task in JOINED}
    made["control"] = Translator("control", controlled(pipe, controlnet))
    made["restoration"] = Translator("restoration", restoring)
    made["text"] = Translator("text", pipe)
    return made


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
    scheduler = at("ddim", config, STEPS)
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
    scheduler = at("ddim_stochastic", config, STEPS)
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
    ours = at("ddim_stochastic", config, steps)
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
        scheduler = at(kind, scheduler_config, STEPS)
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
    scheduler = at("ddim", config, STEPS)
    assert tuple(scheduler.timesteps.tolist()) == STEPS
    assert scheduler.config.solver_order == 1


# --- rows -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "settings", "rows"),
    [
        ("edit", {"guidance": 7.5, "image_guidance": 1.5}, 3),
        ("edit", {"guidance": 7.5}, 3),
        ("edit", {}, 1),
        ("control", {"guidance": 9.0}, 2),
        ("control", {}, 1),
        ("restoration", {}, 1),
        ("inpainting", {}, 1),
        ("synthesis", {}, 1),
        ("text", {"guidance": 2.0}, 2),
        ("text", {}, 1),
    ],
)
def test_rows_that_are_counted_are_those_that_pipelines_compute(
    joined, pipe, controlnet, restoring, images, task, settings, rows
):
    translator, seen = all_translators(joined, pipe, controlnet, restoring)[task], set()
    hook = translator.pipe.unet.register_forward_pre_hook(
        lambda _unet, given: seen.add(len(given[0]))
    )
    spec = spec_of(task, **settings)
    run(translator, images, spec)
    hook.remove()
    assert seen == {rows * len(images)} and spec.branches == rows


# --- what the tasks give the UNet -----------------------------------------------------


def test_an_edit_is_guided_by_the_published_formula(joined, pipe, images):
    translator = Translator("edit", joined)
    found = run(translator, images, spec_of("edit", guidance=7.5, image_guidance=1.5))
    given = encode_images(joined.vae, images, scale=False)
    prompts = encoding.encode_prompts(pipe, PROMPTS)
    empty = prompts.empty.expand_as(prompts.text)
    scheduler = at("ddim", joined.scheduler.config, STEPS)
    x = initial_noise([3, 4], (4, 16, 16))
    with torch.inference_mode():
        for t in scheduler.timesteps:
            rows = [(0 * given, empty), (given, empty), (given, prompts.text)]
            neither, image, both = (
                joined.unet(torch.cat([x, seen], 1), t, text)[0] for seen, text in rows
            )
            v = neither + 7.5 * (both - image) + 1.5 * (image - neither)
            x = scheduler.step(v, t, x, return_dict=False)[0]
    assert torch.allclose(found, x, atol=1e-3)


def test_a_translation_leaves_the_models_own_scheduler(joined, images):
    own = joined.scheduler
    run(Translator("inpainting", joined), images, spec_of("inpainting"))
    assert joined.scheduler is own


@pytest.mark.parametrize("clock", [1, 2])
def test_text_to_image_is_that_of_the_sampler(pipe, images, clock):
    # So that the sampler, too, ends with the clean image of its last timestep.
    config = {**pipe.scheduler.config, "set_alpha_to_one": True}
    plain = SamplerSpec("ddim", 4, 3.0, clock)
    own, pipe.scheduler = pipe.scheduler, new_scheduler("ddim", config, 4)
    translator = Translator("text", pipe)
    noise = initial_noise([3, 4], (4, 16, 16))
    prompts = encoding.encode_prompts(pipe, PROMPTS)
    with clockwork(pipe, clock):
        wanted = sample(pipe, prompts, noise, plain)
        steps = new_scheduler("ddim", pipe.scheduler.config, 4).timesteps.tolist()
        spec = TranslationSpec("text", 4, 3.0, timesteps=tuple(steps), clock=clock)
        found = run(translator, images, spec)
    pipe.scheduler = own
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-4)
    decoded = translator.decode(found, images)
    assert torch.equal(decoded, encoding.decode_latents(pipe, found))


def test_restoration_is_that_of_its_pipeline(restoring, images):
    own, restoring.scheduler = (
        restoring.scheduler,
        at("ddim", restoring.scheduler.config, STEPS),
    )
    wanted = restoring(
        images.float() / 255,
        len(STEPS),
        fidelity_weight=0.0,
        generator=[torch.Generator().manual_seed(seed) for seed in (3, 4)],
        output_type="pt",
    ).images
    restoring.scheduler = own
    translator = Translator("restoration", restoring)
    found = translator.decode(run(translator, images, spec_of("restoration")), images)
    assert (found.float() / 255 - wanted).abs().max() <= 0.51 / 255


def test_restoration_from_noise_is_that_of_the_second_papers_code(restoring, images):
    """Deterministic DDIM from noise alone, told anew, and the plain decoder."""
    found = run(
        Translator("restoration", restoring),
        images,
        spec_of("restoration", from_noise=True),
    )
    low = encode_images(restoring.vae, images)
    x, empty = initial_noise([3, 4], (4, 16, 16)), restoring.empty_prompt(2)
    alphas = restoring.scheduler.alphas_cumprod
    predicts = restoring.scheduler.config.prediction_type
    with torch.inference_mode():
        for t, after in zip(STEPS, (*STEPS[1:], None), strict=True):
            structure = restoring.structure_encoder(low, torch.tensor(t))
            out = restoring.unet(x, t, empty, structure=structure).sample
            a, s = alphas[t].sqrt(), (1 - alphas[t]).sqrt()
            clean, noise = (x - s * out) / a, out
            if predicts == "v_prediction":
                clean, noise = a * x - s * out, s * x + a * out
            if after is None:
                x = clean
            else:
                x = alphas[after].sqrt() * clean + (1 - alphas[after]).sqrt() * noise
    assert torch.allclose(found, x, rtol=1e-3, atol=1e-3)
    usual = run(Translator("restoration", restoring), images, spec_of("restoration"))
    assert not torch.allclose(found, usual, atol=0.1)


@pytest.mark.parametrize("task", ["inpainting", "synthesis"])
def test_other_joined_tasks_see_the_input_and_the_empty_prompt(joined, images, task):
    found = run(Translator(task, joined), images, spec_of(task))
    scheduler = at("ddim", joined.scheduler.config, STEPS)
    given = encode_images(joined.vae, images, scale=False)
    x = initial_noise([3, 4], (4, 16, 16))
    empty = joined._encode_prompt(["", ""], "cpu", 1, False)
    with torch.inference_mode():
        for t in scheduler.timesteps:
            v = joined.unet(torch.cat([x, given], 1), t, empty)[0]
            x = scheduler.step(v, t, x, return_dict=False)[0]
    assert torch.allclose(found, x, atol=1e-4)


# --- what every task shares -----------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_an_image_depends_on_neither_batch_nor_neighbour(
    joined, pipe, controlnet, restoring, images, task
):
    translator = all_translators(joined, pipe, controlnet, restoring)[task]
    spec = spec_of(task, **GUIDED[task])
    whole = run(translator, images, spec)
    alone = run(translator, images[1:], spec, [4], PROMPTS[1:])
    assert torch.allclose(whole[1:], alone, atol=1e-3)
    assert not torch.allclose(whole[:1], alone, atol=1e-1)


@pytest.mark.parametrize("task", ["edit", "restoration"])
def test_drawn_noise_depends_on_neither_batch_nor_neighbour(
    joined, pipe, controlnet, restoring, images, task
):
    translator = all_translators(joined, pipe, controlnet, restoring)[task]
    spec = spec_of(task, **GUIDED[task], scheduler="ddim_stochastic")
    whole = run(translator, images, spec)
    assert torch.equal(whole, run(translator, images, spec))
    alone = run(translator, images[1:], spec, [4], PROMPTS[1:])
    assert torch.allclose(whole[1:], alone, atol=1e-3)
    same = run(translator, images, spec_of(task, **GUIDED[task]))
    assert not torch.allclose(whole, same, atol=1e-1)


@pytest.mark.parametrize("task", TASKS)
def test_the_input_image_matters(joined, pipe, controlnet, restoring, images, task):
    translator = all_translators(joined, pipe, controlnet, restoring)[task]
    spec = spec_of(task, **GUIDED[task])
    one = run(translator, images, spec)
    other = run(translator, images.flip(0), spec)
    # Of text-to-image's the size alone.
    assert torch.allclose(one, other, atol=1e-2) == (task == "text")


@pytest.mark.parametrize("task", TASKS)
def test_level_and_clock_compose(joined, pipe, controlnet, restoring, images, task):
    translator = all_translators(joined, pipe, controlnet, restoring)[task]
    pipe, settings = translator.pipe, GUIDED[task]
    spec = spec_of(task, **settings)
    whole = run(translator, images, spec)
    with depth_skipped(pipe, 9):
        shallow = run(translator, images, spec)
        with clockwork(pipe, 2):
            clocked = run(translator, images, spec)
    assert not torch.allclose(whole, shallow, atol=1e-3)
    assert not torch.allclose(clocked, shallow, atol=1e-4)
    assert clocked.isfinite().all()
    unet, pipe.unet = pipe.unet, depth_skip(pipe.unet, 9)
    assert torch.allclose(run(translator, images, spec), shallow, atol=1e-4)
    pipe.unet = unet
    assert torch.equal(run(translator, images, spec), whole)


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
        ({"image_guidance": 1.5}, "image_guidance 1.5 needs a guidance above 1"),
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


def test_a_translator_does_its_own_task(joined, images):
    translator = Translator("inpainting", joined)
    with pytest.raises(ValueError, match="for inpainting does no edit"):
        run(translator, images, spec_of("edit"))
    with pytest.raises(ValueError, match="2 images, 2 prompts and 1 seeds are not one"):
        run(translator, images, spec_of("inpainting"), [3])


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 3, 28, 64), "images are 64×28 pixels, and the model needs 32×32 or more"),
        ((2, 3, 64, 66), "images are 66×64 pixels, and the model needs multiples of 4"),
        ((2, 1, 64, 64), "not uint8"),
    ],
)
def test_images_that_do_not_fit_are_refused(joined, shape, message):
    images = torch.zeros(shape, dtype=torch.uint8)
    with pytest.raises(ValueError, match=message):
        run(Translator("inpainting", joined), images, spec_of("inpainting"))


def test_the_smallest_image_and_an_oblong_one_work(joined):
    translator = Translator("inpainting", joined)
    for size in ((32, 32), (32, 48)):
        images = torch.zeros(1, 3, *size, dtype=torch.uint8)
        latents = run(translator, images, spec_of("inpainting"), [1], [""])
        assert translator.decode(latents, images).shape == images.shape


def test_channels_that_do_not_fit_are_refused(pipe, joined):
    with pytest.raises(ValueError, match="edit needs a UNet of 8 .* this one has 4"):
        translators.check_channels(pipe, 2, "edit")
    with pytest.raises(ValueError, match="control needs a UNet of 4 .* this one has 8"):
        translators.check_channels(joined, 1, "control")


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
        translators.check_controlnet(other, pipe.unet, pipe.vae)
    assert "\n" not in str(caught.value)


# --- loading --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(joined, controlnet, restoring, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("translators")
    joined.save_pretrained(folder / "joined")
    controlnet.save_pretrained(folder / "controlnet")
    restoring.save_pretrained(folder / "restoration")
    return folder


def test_translators_come_back_from_disk(
    saved, joined, pipe, controlnet, restoring, images
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
        assert loaded.fidelity == 0.0
        wanted = run(made[task], images, spec)
        assert torch.allclose(run(loaded, images, spec), wanted, atol=1e-4)


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
