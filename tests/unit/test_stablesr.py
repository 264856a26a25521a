"""StableSR's modules: sizes, SPADE, structure, CFW, colours, depth-skip, pipeline."""

import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D

from clockwork_diffusion.depth_skip import DepthSkipUNet, depth_skip
from clockwork_diffusion.schedulers import new_scheduler, visiting
from clockwork_diffusion.stablesr.cfw import CFWAutoencoder
from clockwork_diffusion.stablesr.colour_fix import adain, fix_colours, wavelet
from clockwork_diffusion.stablesr.pipeline import StableSRPipeline
from clockwork_diffusion.stablesr.spade import (
    STABLESR_UNET,
    SpadeResnetBlock2D,
    SpadeUNet,
    calibrate_spade,
    spades,
)
from clockwork_diffusion.stablesr.structure_encoder import StructureEncoder
from clockwork_diffusion.unet import SpadeInput, SplitUNet
from clockwork_experiments.models import loading

STRUCTURE = 16


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def shake(module, seed=0):
    """Replace all weights, zeros included, so that nothing is idle."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            fan = max(1, parameter[0].numel()) if parameter.ndim > 1 else 100
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * fan**-0.5)
    return module.eval()


def draw_structure(n=2, seed=3):
    return {w: draw(n, STRUCTURE, w, w, seed=seed + w) for w in (16, 8, 4, 2)}


@pytest.fixture(scope="module")
def spade_unet(unet):
    return shake(SpadeUNet.from_unet(unet, STRUCTURE, 8))


@pytest.fixture(scope="module")
def encoder():
    return StructureEncoder(
        block_out_channels=(16, 16, 32, 32),
        structure_channels=STRUCTURE,
        norm_num_groups=8,
        heads=2,
    ).eval()


@pytest.fixture(scope="module")
def mini(root):
    return loading.load_pipeline(root / "resources/mini/stable-diffusion")


@pytest.fixture(scope="module")
def restorer(mini):
    torch.manual_seed(0)
    encoder = StructureEncoder(
        block_out_channels=(16, 16, 32, 32),
        structure_channels=STRUCTURE,
        norm_num_groups=8,
        heads=2,
    )
    vae = CFWAutoencoder.from_autoencoder(mini.vae, fuse_blocks=1, fuse_growth=4)
    pipe = StableSRPipeline(
        vae.eval(),
        mini.text_encoder,
        mini.tokenizer,
        SpadeUNet.from_unet(mini.unet, STRUCTURE, 8).eval(),
        encoder.eval(),
        DDIMScheduler.from_config(mini.scheduler.config, clip_sample=False),
        upscale=1,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


# --- sizes ----------------------------------------------------------------------------


def test_paper_size():
    with torch.device("meta"):
        unet, encoder = SpadeUNet(**STABLESR_UNET), StructureEncoder()
    spade = sum(count(layer) for _, layer in spades(unet))
    assert (count(unet), spade, count(encoder)) == (918_930_884, 53_020_160, 52_494_080)
    # SD-2.1-base, once SPADE is left out.
    assert count(unet) - spade == 865_910_724


@pytest.mark.parametrize(("level", "share"), [(8, 43.58), (9, 60.77)])
def test_paper_shares_that_levels_keep(level, share):
    with torch.device("meta"):
        whole = SpadeUNet(**STABLESR_UNET)
        cut = depth_skip(whole, level)
    time = count(whole.time_embedding)
    # As in Table S7: no time embedding; the output layers above the line only.
    output = count(whole.conv_norm_out) + count(whole.conv_out)
    kept = count(cut) - time
    assert round(100 * kept / (count(whole) - time - output), 2) == share


# --- SPADE ----------------------------------------------------------------------------


def test_every_resblock_has_spade(spade_unet):
    blocks = [m for m in spade_unet.modules() if isinstance(m, ResnetBlock2D)]
    assert len(blocks) == 22
    assert all(isinstance(block, SpadeResnetBlock2D) for block in blocks)
    assert len(list(spades(spade_unet))) == 22


def test_spade_is_its_formula():
    torch.manual_seed(0)
    plain = ResnetBlock2D(
        in_channels=16, out_channels=24, temb_channels=20, groups=4, eps=1e-5
    )
    block = shake(SpadeResnetBlock2D.around(plain, STRUCTURE, 8))
    x, emb, s = draw(2, 16, 8, 8), draw(2, 20, seed=1), draw(2, STRUCTURE, 8, 8, seed=2)
    w = dict(block.named_parameters())

    def conv(name, value, padding=1):
        return F.conv2d(value, w[f"{name}.weight"], w[f"{name}.bias"], padding=padding)

    def norm(name, value):
        groups = value.unflatten(1, (4, -1))
        mean = groups.mean((2, 3, 4), keepdim=True)
        variance = groups.var((2, 3, 4), keepdim=True, correction=0)
        normed = ((groups - mean) / (variance + 1e-5).sqrt()).flatten(1, 2)
        scale, shift = w[f"{name}.weight"], w[f"{name}.bias"]
        return normed * scale[:, None, None] + shift[:, None, None]

    h = conv("conv1", F.silu(norm("norm1", x)))
    shift = F.silu(emb) @ w["time_emb_proj.weight"].T + w["time_emb_proj.bias"]
    h = conv("conv2", F.silu(norm("norm2", h + shift[:, :, None, None])))
    read = conv("spade.shared", s).clamp(min=0)
    gamma, beta = conv("spade.gamma", read), conv("spade.beta", read)
    expected = conv("conv_shortcut", x, 0) + norm("spade.norm", h) * (1 + gamma) + beta
    with torch.no_grad():
        found = block(x, SpadeInput(emb, {8: s}))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_fresh_spade_reads_no_structure(unet, inputs):
    fresh = SpadeUNet.from_unet(unet, STRUCTURE, 8).eval()
    with torch.no_grad():
        a, b = (
            fresh(*inputs, structure=draw_structure(seed=seed)).sample
            for seed in (1, 2)
        )
        assert torch.equal(a, b)
        # Its first gradients reach it all the same.
        _, layer = next(spades(fresh))
    with torch.enable_grad():
        fresh(*inputs, structure=draw_structure()).sample.square().mean().backward()
    assert layer.gamma.weight.grad.abs().max() > 0
    assert layer.beta.weight.grad.abs().max() > 0


def test_without_its_normalisation_a_fresh_spade_unet_is_the_plain_one(unet, inputs):
    """Only SPADE differs: convolutional projections become the same linear ones."""
    fresh = SpadeUNet.from_unet(unet, STRUCTURE, 8).eval()
    assert fresh.config.use_linear_projection
    assert not unet.config.use_linear_projection
    for _, layer in spades(fresh):
        layer.norm = torch.nn.Identity()
    with torch.no_grad():
        found = fresh(*inputs, structure=draw_structure()).sample
        torch.testing.assert_close(found, unet(*inputs).sample, rtol=1e-4, atol=1e-5)


def test_calibration_brings_the_fresh_unet_close_to_the_plain_one(mini):
    def batch(seed, n=4):
        t = torch.tensor([80, 350, 600, 950])[:n]
        return draw(n, 4, 16, 16, seed=seed), t, draw(n, 8, 64, seed=seed + 1)

    fresh = SpadeUNet.from_unet(mini.unet, STRUCTURE, 8).eval()
    x = batch(10)
    structure = draw_structure(4)
    with torch.no_grad():
        wanted = mini.unet(*x).sample

        def error():
            found = fresh(*x, structure=structure).sample
            return ((found - wanted).square().mean() / wanted.square().mean()).item()

        before = error()
        assert calibrate_spade(fresh, [batch(20), batch(30)]) is fresh
        assert error() < before / 4
    assert all(not layer._forward_hooks for _, layer in spades(fresh))
    with pytest.raises(ValueError, match="at least one batch"):
        calibrate_spade(fresh, [])


def test_spade_unets_save_and_load(spade_unet, inputs, tmp_path):
    spade_unet.save_pretrained(tmp_path)
    again = SpadeUNet.from_pretrained(tmp_path).eval()
    assert again.config.structure_channels == STRUCTURE
    with torch.no_grad():
        a, b = (
            u(*inputs, structure=draw_structure()).sample for u in (spade_unet, again)
        )
    assert torch.equal(a, b)


def test_missing_structure_is_one_line(spade_unet, inputs):
    with pytest.raises(ValueError, match="needs the structure.*pass structure="):
        spade_unet(*inputs)
    with pytest.raises(ValueError, match=r"no features of width 16, only 8, 4"):
        spade_unet(
            *inputs,
            structure={8: draw(2, STRUCTURE, 8, 8), 4: draw(2, STRUCTURE, 4, 4)},
        )


# --- depth-skip -----------------------------------------------------------------------


def reference(unet, x, t, text, structure, level):
    """Run diffusers' own blocks layer by layer, with zeros where the cut is."""
    emb = unet.time_embedding(unet.time_proj(t.expand(len(x))).to(x.dtype))
    temb = SpadeInput(emb, structure)
    h, skips = unet.conv_in(x), []
    skips.append(h)
    for block in unet.down_blocks:
        for index, resnet in enumerate(block.resnets):
            h = resnet(h, temb)
            if getattr(block, "attentions", None):
                h = block.attentions[index](h, encoder_hidden_states=text).sample
            skips.append(h)
        for sampler in block.downsamplers or ():
            h = sampler(h)
            skips.append(h)
    if level == 13:
        h = unet.mid_block(h, temb, encoder_hidden_states=text)
    number = 12
    for block in unet.up_blocks:
        for index, resnet in enumerate(block.resnets):
            skip = skips.pop()
            if number == level:
                channels = resnet.in_channels - skip.shape[1]
                h = torch.zeros(len(x), channels, *skip.shape[2:])
            if number <= level:
                h = resnet(torch.cat([h, skip], dim=1), temb)
                if getattr(block, "attentions", None):
                    h = block.attentions[index](h, encoder_hidden_states=text).sample
            number -= 1
        if number < level:
            for sampler in block.upsamplers or ():
                h = sampler(h)
    return unet.conv_out(unet.conv_act(unet.conv_norm_out(h)))


@pytest.mark.parametrize("level", range(1, 14))
def test_levels_equal_a_plain_reference(spade_unet, inputs, level):
    structure = draw_structure()
    cut = depth_skip(spade_unet, level)
    assert type(cut) is SpadeUNet and isinstance(cut, DepthSkipUNet)
    with torch.no_grad():
        found = cut(*inputs, structure=structure).sample
        expected = reference(spade_unet, *inputs, structure, level)
        other = cut(*inputs, structure=draw_structure(seed=9)).sample
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert not torch.allclose(found, other, atol=1e-4)


def test_a_cut_spade_unet_saves_what_is_left(spade_unet, inputs, tmp_path):
    cut = depth_skip(spade_unet, 9)
    cut.save_pretrained(tmp_path)
    again = SpadeUNet.from_pretrained(tmp_path).eval()
    assert again.config.level == 9
    assert count(again) == count(cut) < count(spade_unet)
    structure = draw_structure()
    with torch.no_grad():
        a, b = (u(*inputs, structure=structure).sample for u in (cut, again))
    assert torch.equal(a, b)
    weights = next(tmp_path.glob("*.safetensors")).stat().st_size
    assert weights < 4 * count(cut) + 100_000


def test_spade_unets_split(spade_unet, inputs):
    structure = draw_structure()
    with torch.no_grad():
        whole = spade_unet(*inputs, structure=structure).sample
        step = SplitUNet(spade_unet, "stage1").full(*inputs, structure=structure)
    assert torch.equal(step.eps, whole)


# --- structure encoder ----------------------------------------------------------------


def test_structure_has_every_width_and_knows_the_time(encoder, tmp_path):
    shaken = shake(encoder)
    x = draw(2, 4, 16, 24)
    with torch.no_grad():
        early, late = shaken(x, 900), shaken(x, torch.tensor([100, 100]))
        mixed = shaken(x, torch.tensor([900, 100]))
    assert {w: f.shape for w, f in early.items()} == {
        24: (2, 16, 16, 24), 12: (2, 16, 8, 12), 6: (2, 16, 4, 6), 3: (2, 16, 2, 3)
    }  # fmt: skip
    for width in early:
        assert not torch.allclose(early[width], late[width], atol=1e-3)
        torch.testing.assert_close(
            mixed[width], torch.stack([early[width][0], late[width][1]])
        )
    shaken.save_pretrained(tmp_path)
    with torch.no_grad():
        again = StructureEncoder.from_pretrained(tmp_path).eval()(x, 900)
    assert all(torch.equal(again[width], early[width]) for width in early)


def test_structure_of_too_small_latents(encoder):
    with pytest.raises(ValueError, match=r"latents of 4x16 are too small.*8x8"):
        encoder(draw(1, 4, 4, 16), 0)
    with pytest.raises(ValueError, match="2 entries, and attention 4"):
        StructureEncoder(block_out_channels=(32, 32))


# --- CFW and colours ------------------------------------------------------------------


def test_cfw(mini, tmp_path):
    torch.manual_seed(0)
    vae = CFWAutoencoder.from_autoencoder(mini.vae, fuse_blocks=1, fuse_growth=4).eval()
    x = draw(2, 3, 64, 64).clamp(-1, 1)
    vae.save_pretrained(tmp_path)
    again = CFWAutoencoder.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        found, features = vae.encode_with_features(x)
        assert torch.equal(found.mean, mini.vae.encode(x).latent_dist.mean)
        plain = mini.vae.decode(found.mean).sample
        assert torch.equal(vae.decode_with_features(found.mean, features, 0), plain)
        assert torch.equal(vae.decode(found.mean).sample, plain)
        half, whole = (
            vae.decode_with_features(found.mean, features, w) for w in (0.5, 1)
        )
        assert torch.equal(again.decode_with_features(found.mean, features, 1), whole)
        other = vae.decode_with_features(found.mean, (features[0].flip(0),), 1)
    assert (whole - plain).abs().mean() > (half - plain).abs().mean() > 1e-3
    assert (other - whole).abs().mean() > 1e-3
    with pytest.raises(ValueError, match="at least 3 resolutions, not 1"):
        CFWAutoencoder()
    assert isinstance(vae, AutoencoderKL)


def test_adain_takes_each_image_and_channel_to_the_references():
    images, reference = draw(2, 3, 32, 32), 3 + draw(2, 3, 16, 16, seed=1) * 0.3
    images[1] *= 5
    fixed = adain(images, reference)
    for n in range(2):
        for c in range(3):
            found, wanted = fixed[n, c], reference[n, c]
            assert found.mean().item() == pytest.approx(wanted.mean().item(), abs=1e-4)
            assert found.std().item() == pytest.approx(wanted.std().item(), rel=1e-3)
            # Nothing but a scale and a shift.
            both = torch.stack([found.flatten(), images[n, c].flatten()])
            assert torch.corrcoef(both)[0, 1].item() == pytest.approx(1, abs=1e-5)
    flat = adain(torch.zeros(1, 3, 8, 8), reference[:1])
    assert torch.isfinite(flat).all()


def test_wavelet_changes_colours_and_keeps_detail():
    fine = torch.zeros(1, 3, 64, 64)
    fine[..., ::2] = 0.1
    image, reference = 0.2 + fine, torch.full_like(fine, -0.4)
    fixed = wavelet(image, reference)
    inner = fixed[..., 8:-8, 8:-8]
    assert inner.mean().item() == pytest.approx(-0.4, abs=0.01)
    assert inner.std().item() == pytest.approx(0.05, rel=0.05)
    assert torch.equal(fix_colours(image, reference, "none"), image)
    assert torch.equal(fix_colours(image, reference, "wavelet"), fixed)
    with pytest.raises(ValueError, match="'sepia' is not one of adain, wavelet, none"):
        fix_colours(image, reference, "sepia")


# --- pipeline -------------------------------------------------------------------------


def at(pipe, timesteps):
    """Return a scheduler of the pipeline's noise schedule at given time steps."""
    own = new_scheduler("ddim", pipe.scheduler.config, 3)
    return visiting(own, timesteps)


def restore(pipe, image, seed=0, **kwargs):
    generator = torch.Generator().manual_seed(seed)
    arguments = {"num_inference_steps": 3, "generator": generator, "output_type": "pt"}
    return pipe(image, **(arguments | kwargs)).images


def test_pipeline_folders_restore_the_same(restorer, tmp_path):
    image = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    restorer.save_pretrained(tmp_path)
    again = StableSRPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert again.config.upscale == 1
    a, b = (restore(pipe, image) for pipe in (restorer, again))
    assert torch.equal(a, b)
    assert not torch.equal(a, restore(restorer, image, seed=1))
    # Colours are the low-quality image's; a pale one's leave hardly anything to clip.
    pale = 0.4 + 0.2 * image
    off = (restore(restorer, pale) - pale).mean((2, 3)).abs()
    unfixed = (restore(restorer, pale, colour_fix="none") - pale).mean((2, 3)).abs()
    assert off.max() < 0.005 < unfixed.max()


def test_pipelines_end_at_the_clean_latents_of_the_last_timestep(restorer):
    """Deterministic DDIM, written out with the pipeline's pieces."""
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    low = image * 2 - 1
    steps = (949, 549, 68)
    bars = restorer.scheduler.alphas_cumprod
    with torch.no_grad():
        latents = restorer.encode(low)
        noise = draw(*latents.shape, seed=5)
        x = restorer.start(latents, noise, steps[0])
        bar = bars[steps[0]]
        torch.testing.assert_close(x, bar.sqrt() * latents + (1 - bar).sqrt() * noise)
        text = restorer.empty_prompt(1)
        for index, t in enumerate(steps):
            structure = restorer.structure_of(latents, t)
            v = restorer.unet(x, t, text, structure=structure).sample
            a, s = bars[t].sqrt(), (1 - bars[t]).sqrt()
            clean, eps = a * x - s * v, a * v + s * x
            if index < 2:
                after = bars[steps[index + 1]]
                x = after.sqrt() * clean + (1 - after).sqrt() * eps
        expected = restorer.decode(clean, low, 0.5) / 2 + 0.5
    own, restorer.scheduler = restorer.scheduler, at(restorer, steps)
    found = restore(restorer, image, seed=5)
    restorer.scheduler = own
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_pipelines_run_cut_and_enlarge(restorer):
    whole = restorer.unet
    image = torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(1))
    restorer.register_to_config(upscale=4)
    try:
        assert restore(restorer, image).shape == (1, 3, 64, 96)
        restorer.unet = depth_skip(whole, 6)
        assert restore(restorer, image).shape == (1, 3, 64, 96)
        small = torch.rand(1, 3, 7, 16)
        with pytest.raises(ValueError, match="16x7 is too small.*at least 8 pixels"):
            restorer(small)
    finally:
        restorer.unet = whole
        restorer.register_to_config(upscale=1)
    with pytest.raises(ValueError, match="24x40 is too small.*at least 32 pixels"):
        restorer(torch.rand(1, 3, 40, 24))
    with pytest.raises(ValueError, match="42x40 pixels is not made of whole latents"):
        restorer(torch.rand(1, 3, 40, 42))


@pytest.mark.parametrize("bad", [[], [3, 3], [1, 2], [1000, 5], [5, -1]])
def test_timesteps_that_do_not_descend_are_refused(restorer, bad):
    with pytest.raises(ValueError, match="no timesteps|do not descend|is not one of"):
        at(restorer, bad)


def test_from_unet_leaves_the_plain_unet_alone(unet, inputs):
    assert isinstance(unet, UNet2DConditionModel)
    with torch.no_grad():
        before = unet(*inputs).sample
        shake(SpadeUNet.from_unet(unet, STRUCTURE, 8))
        assert torch.equal(unet(*inputs).sample, before)
