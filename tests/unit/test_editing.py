import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import StableDiffusionPipeline, UNet2DConditionModel

from clockwork_diffusion.adaptors import (
    ExtrapolationAdaptor,
    IdentityAdaptor,
    build_adaptor,
)
from clockwork_diffusion.branches import BranchPasses, BranchUNet
from clockwork_diffusion.clock import Clock
from clockwork_diffusion.encoding import (
    Prompts,
    decode_latents,
    encode_images,
    encode_prompts,
)
from clockwork_diffusion.passes import Memory, Passes
from clockwork_diffusion.plug_and_play.injection import FeatureStore, Injection
from clockwork_diffusion.plug_and_play.loops import (
    EditPrompts,
    GenerationSpec,
    InversionSpec,
    Inverted,
    check_timesteps,
    ddim_timesteps,
    encode_edits,
    extract_features,
    generate,
    invert,
)
from clockwork_diffusion.unet import SplitUNet, Step
from clockwork_experiments.cost.architectures import build_unet
from clockwork_experiments.models.loading import load_pipeline
from clockwork_experiments.world import scenes
from clockwork_experiments.world.captions import captions

KINDS = ("epsilon", "v_prediction")
SCHEDULE = {
    # SD's, as its DDIM has it: timesteps start at 1.
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}
ALPHAS = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000).square()).cumprod(0)


TINY = {
    "sample_size": 8,
    "block_out_channels": (8, 16, 16, 16),
    "cross_attention_dim": 24,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}


@pytest.fixture(scope="module")
def exact() -> UNet2DConditionModel:
    """A UNet of SD's topology, in double precision: no rounding hides an error."""
    torch.manual_seed(0)
    return build_unet("sd", TINY, "cpu").double()


@pytest.fixture
def sources() -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(3, 4, 8, 8, generator=generator, dtype=torch.float64)


def random_prompts(count: int, seed: int) -> Prompts:
    generator = torch.Generator().manual_seed(seed)
    return Prompts(
        *(
            torch.randn(shape, generator=generator, dtype=torch.float64)
            for shape in ((count, 5, 24), (1, 5, 24), (count, 8), (1, 8))
        )
    )


def random_edits(count: int, seed: int = 4) -> EditPrompts:
    negative = random_prompts(1, seed + 100)
    return EditPrompts(random_prompts(count, seed), negative.text, negative.pooled)


def config_of(kind: str) -> dict:
    return {**SCHEDULE, "prediction_type": kind}


def adaptor_of(kind: str, unet):
    if kind in ("none", "identity", "extrapolation"):
        made = {"identity": IdentityAdaptor, "extrapolation": ExtrapolationAdaptor}
        return made[kind]() if kind in made else None
    torch.manual_seed(6)
    adaptor = build_adaptor(kind, unet, "stage1", 8)
    torch.nn.init.normal_(adaptor.up.weight, std=0.02)
    return adaptor.double().eval()


class Counted:
    """Passes that note the kind and the rows of each call."""

    def __init__(self, split: SplitUNet, adaptor=None) -> None:
        self.passes = Passes(split, adaptor)
        self.unet, self.history = self.passes.unet, self.passes.history
        self.check, self.keep = self.passes.check, self.passes.keep
        self.calls: list[tuple[str, int]] = []

    def full(self, x, *args, **kwargs) -> Step:
        self.calls.append(("full", len(x)))
        return self.passes.full(x, *args, **kwargs)

    def light(self, x, *args, **kwargs) -> Step:
        self.calls.append(("light", len(x)))
        return self.passes.light(x, *args, **kwargs)


# --- the method, written down a second time -------------------------------------------


def ddim(x, output, t: int, to: int, kind: str):
    """Take a DDIM step from timestep t; below 0 there is the schedule's first ᾱ."""
    alpha, target = ALPHAS[t].double(), ALPHAS[max(to, 0)].double()
    if kind == "epsilon":
        noise = output
        clean = (x - (1 - alpha).sqrt() * noise) / alpha.sqrt()
    else:
        clean = alpha.sqrt() * x - (1 - alpha).sqrt() * output
        noise = alpha.sqrt() * output + (1 - alpha).sqrt() * x
    return target.sqrt() * clean + (1 - target).sqrt() * noise


class Published:
    """A UNet with patched forwards, as pnp-diffusers patches it; for one image."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        self.unet = copy.deepcopy(unet)
        self.conv = self.attention = False
        resnet = self.unet.up_blocks[1].resnets[1]
        resnet.forward = self._resnet(resnet)
        for up, places in {1: (1, 2), 2: (0, 1, 2), 3: (0, 1, 2)}.items():
            for place in places:
                transformer = self.unet.up_blocks[up].attentions[place]
                attention = transformer.transformer_blocks[0].attn1
                attention.forward = self._attention(attention)

    def _resnet(self, layer):
        def forward(x, temb):
            hidden = layer.conv1(F.silu(layer.norm1(x)))
            hidden = hidden + layer.time_emb_proj(F.silu(temb))[:, :, None, None]
            hidden = layer.conv2(F.silu(layer.norm2(hidden)))
            if self.conv:
                hidden[1:] = hidden[:1].clone()
            return layer.conv_shortcut(x) + hidden

        return forward

    def _attention(self, layer):
        def forward(x, encoder_hidden_states=None, attention_mask=None):
            assert encoder_hidden_states is None and attention_mask is None
            q, k, v = layer.to_q(x), layer.to_k(x), layer.to_v(x)
            if self.attention:
                q[1:], k[1:] = q[:1].clone(), k[:1].clone()
            q, k, v = (each.unflatten(2, (layer.heads, -1)) for each in (q, k, v))
            weights = torch.einsum("bihc,bjhc->bhij", q, k) * q.shape[-1] ** -0.5
            mixed = torch.einsum("bhij,bjhc->bihc", weights.softmax(-1), v)
            return layer.to_out[0](mixed.flatten(2))

        return forward

    @torch.no_grad()
    def edit(
        self, kept: dict, edits: EditPrompts, spec: GenerationSpec, kind: str
    ) -> torch.Tensor:
        """Generate one edit of a source's kept latents; `clock` 2 and up as identity.

        The reference for a clock: a hook replaces what UP-2 yields, whatever ran.
        """
        calls, cache = 0, None

        def cached(_module, _inputs, output):
            nonlocal calls, cache
            cache = output if calls % spec.clock == 0 else cache
            calls += 1
            return cache

        handle = self.unet.up_blocks[2].register_forward_hook(cached)
        gap = 1000 // spec.steps
        timesteps = [1 + gap * index for index in range(spec.steps)][::-1]
        text = [edits.targets.empty, edits.negative, edits.targets.text]
        x = kept[timesteps[0]]
        for index, t in enumerate(timesteps):
            self.conv = index < int(spec.tau_f * spec.steps)
            self.attention = index < int(spec.tau_a * spec.steps)
            batch = torch.cat([kept[t], x, x])
            output = self.unet(batch, torch.tensor(t), torch.cat(text)).sample
            _, negative, target = output.chunk(3)
            guided = negative + spec.guidance * (target - negative)
            x = ddim(x, guided, t, t - gap, kind)
        handle.remove()
        return x


@torch.no_grad()
def plain_inversion(unet, latents, text, steps: int, kind: str) -> dict:
    """Invert; what the UNet says is solved for image and noise by linear algebra."""
    x, before, kept = latents, ALPHAS[0].double(), {}
    for t in [1 + 1000 // steps * index for index in range(steps)]:
        output = unet(x, torch.tensor(t), text).sample
        alpha = ALPHAS[t].double()
        rows = [[before.sqrt(), (1 - before).sqrt()], [0.0, 1.0]]
        if kind == "v_prediction":
            rows[1] = [-(1 - alpha).sqrt(), alpha.sqrt()]
        both = torch.stack([x.flatten(), output.flatten()])
        solved = torch.linalg.solve(torch.tensor(rows, dtype=torch.float64), both)
        clean, noise = (each.view_as(x) for each in solved)
        x = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        kept[t], before = x, alpha
    return kept


# --- inversion ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [1, 7])
def test_inversion_equals_a_plain_loop(exact, sources, kind, steps):
    prompts = random_prompts(3, 3)
    passes = Passes(SplitUNet(exact))
    found = invert(passes, config_of(kind), sources, prompts, InversionSpec(steps))
    gap = 1000 // steps
    assert found.timesteps == tuple(1 + gap * index for index in range(steps))
    assert found.latents.shape == (3, steps, 4, 8, 8)
    for row in range(3):
        part = slice(row, row + 1)
        arguments = (sources[part], prompts.text[part], steps, kind)
        kept = plain_inversion(exact, *arguments)
        for t, latents in kept.items():
            torch.testing.assert_close(found.at(t)[part], latents, rtol=0, atol=1e-5)


def test_the_steps_of_an_inversion_are_reported(exact, sources):
    seen = []
    passes = Passes(SplitUNet(exact))
    arguments = (passes, config_of("epsilon"), sources, random_prompts(3, 3))
    found = invert(*arguments, InversionSpec(4), lambda *each: seen.append(each))
    assert [each[:2] for each in seen] == list(enumerate(found.timesteps))
    # Each pass is about the latent that the step before has left.
    text = random_prompts(3, 3).text
    with torch.inference_mode():
        step = SplitUNet(exact).full(found.at(251), torch.tensor(501), text)
    torch.testing.assert_close(seen[2][2].r_out, step.r_out)


@pytest.mark.parametrize("clock", [1, 2, 4])
def test_the_clock_counts_from_the_first_step_of_inversion(exact, sources, clock):
    passes = Counted(SplitUNet(exact), IdentityAdaptor())
    spec = InversionSpec(7, clock)
    invert(passes, config_of("epsilon"), sources, random_prompts(3, 3), spec)
    full = [index for index, (kind, _) in enumerate(passes.calls) if kind == "full"]
    assert full == list(range(0, 7, clock))
    assert len(passes.calls) == 7 and {rows for _, rows in passes.calls} == {3}


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_inversion_with_identity_equals_caching_features(exact, sources, kind):
    prompts, calls, cache = random_prompts(3, 3), 0, None

    def cached(_module, _inputs, output):
        nonlocal calls, cache
        cache = output if calls % 2 == 0 else cache
        calls += 1
        return cache

    passes = Passes(SplitUNet(exact), IdentityAdaptor())
    spec = InversionSpec(6, 2)
    found = invert(passes, config_of(kind), sources, prompts, spec)
    handle = exact.up_blocks[2].register_forward_hook(cached)
    kept = plain_inversion(exact, sources, prompts.text, 6, kind)
    handle.remove()
    last = max(kept)
    torch.testing.assert_close(found.at(last), kept[last], rtol=0, atol=1e-5)
    whole = plain_inversion(exact, sources, prompts.text, 6, kind)
    assert (whole[last] - kept[last]).abs().max() > 1e-3


@pytest.mark.parametrize(("clock", "kind"), [(1, "none"), (2, "resnet")])
def test_an_inverted_image_does_not_depend_on_its_batch(exact, sources, clock, kind):
    passes = Passes(SplitUNet(exact), adaptor_of(kind, exact))
    prompts, spec = random_prompts(3, 3), InversionSpec(5, clock)
    arguments = (passes, config_of("epsilon"))
    together = invert(*arguments, sources, prompts, spec)
    alone = invert(*arguments, sources[1:2], prompts[1:2], spec)
    torch.testing.assert_close(alone.latents, together.of([1]).latents)
    picked = together.of([2, 0, 2]).latents
    assert torch.equal(picked, together.latents[[2, 0, 2]])


def test_a_model_that_predicts_the_image_cannot_be_inverted(exact, sources):
    arguments = (sources, random_prompts(3, 3), InversionSpec(2))
    with pytest.raises(ValueError, match="prediction type 'sample' cannot be inverted"):
        invert(Passes(SplitUNet(exact)), config_of("sample"), *arguments)


# --- generation -----------------------------------------------------------------------


def inverted_of(count: int, steps: int) -> Inverted:
    """Return what an inversion might keep; any latents do."""
    generator = torch.Generator().manual_seed(7)
    shape = (count, steps, 4, 8, 8)
    latents = torch.randn(shape, generator=generator, dtype=torch.float64)
    return Inverted(latents, ddim_timesteps(SCHEDULE, steps)[::-1])


def kept_of(inverted: Inverted, row: int) -> dict[int, torch.Tensor]:
    return {t: inverted.at(t)[row : row + 1] for t in inverted.timesteps}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("tau_f", "tau_a", "clock"),
    [
        (0.0, 0.0, 1),
        (0.8, 0.5, 1),
        (0.3, 0.7, 1),
        (0.0, 0.5, 1),
        (0.8, 0.0, 1),
        (1.0, 1.0, 1),
        (0.8, 0.5, 2),
        (0.8, 0.5, 4),
    ],
)
def test_edits_equal_the_published_method(exact, kind, tau_f, tau_a, clock):
    """A batch of three against one image at a time."""
    inverted = inverted_of(3, 5)
    edits = random_edits(3)
    spec = GenerationSpec(5, 4.0, tau_f, tau_a, clock=clock)
    passes = Passes(SplitUNet(exact), IdentityAdaptor())
    with Injection(exact) as injection:
        arguments = (passes, config_of(kind), inverted, edits, spec, injection)
        found = generate(*arguments)
    published = Published(exact)
    without = GenerationSpec(5, 4.0, 0, 0, clock=clock)
    for row in range(3):
        edit, kept = edits.part(slice(row, row + 1)), kept_of(inverted, row)
        expected = published.edit(kept, edit, spec, kind)
        torch.testing.assert_close(found[row : row + 1], expected, rtol=0, atol=1e-5)
        if row == 0 and (tau_f or tau_a):
            plain = published.edit(kept, edit, without, kind)
            assert (plain - expected).abs().max() > 1e-3


def test_the_generation_may_have_fewer_steps_than_the_inversion(exact):
    inverted = inverted_of(1, 10)
    edits, spec = random_edits(1), GenerationSpec(5, 4.0, 0.8, 0.5)
    with Injection(exact) as injection:
        passes, config = Passes(SplitUNet(exact)), config_of("epsilon")
        found = generate(passes, config, inverted, edits, spec, injection)
        lost = Inverted(inverted.latents[:, :-2], inverted.timesteps[:-2])
        with pytest.raises(ValueError, match="keeps no latent for 1 of the 5 timestep"):
            generate(passes, config, lost, edits, spec, injection)
        with pytest.raises(ValueError, match="keeps no latent for 1 of the 5 timestep"):
            extract_features(passes, config, lost, edits, spec, injection)
    expected = Published(exact).edit(kept_of(inverted, 0), edits, spec, "epsilon")
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_an_edit_without_guidance_has_no_negative_prompt(exact):
    """Guidance of 1 is the target prompt's own prediction."""
    inverted = inverted_of(3, 5)
    edits, config = random_edits(3), config_of("v_prediction")
    passes = Counted(SplitUNet(exact))
    with Injection(exact) as injection:
        spec = GenerationSpec(5, 1.0, 0.8, 0.5)
        found = generate(passes, config, inverted, edits, spec, injection)
    assert [rows for _, rows in passes.calls] == [6] * 5
    edit = edits.part(slice(2, 3))
    expected = Published(exact).edit(kept_of(inverted, 2), edit, spec, "v_prediction")
    torch.testing.assert_close(found[2:], expected, rtol=0, atol=1e-5)


def test_the_efficient_unet_is_edited_as_well():
    """Its last block has no attention, and at clock 2 nothing to inject every other."""
    torch.manual_seed(0)
    unet = build_unet("efficient", TINY, "cpu").double()
    inverted = inverted_of(3, 6)
    edits, config = random_edits(3), config_of("epsilon")
    passes = Passes(SplitUNet(unet), IdentityAdaptor())
    found = []
    with Injection(unet) as injection:
        for features, tau in (("latents", 0.8), ("activations", 0.8), ("latents", 0)):
            spec = GenerationSpec(6, 4.0, tau, tau / 2, clock=2, features=features)
            arguments = (passes, config, inverted, edits, spec, injection)
            store = extract_features(*arguments) if features == "activations" else None
            found.append(generate(*arguments, store))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-5)
    assert (found[0] - found[2]).abs().max() > 1e-3


# --- the two optimisations ------------------------------------------------------------


ROWS = [0, 1, 1, 0, 1]
"""Sources of five edits."""


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize(
    ("clock", "kind"),
    [
        (1, "none"),
        (2, "identity"),
        (4, "identity"),
        (2, "resnet"),
        (4, "resnet"),
        (3, "extrapolation"),
    ],
)
def test_the_optimisations_do_not_change_the_image(
    exact, tmp_path, clock, kind, guidance
):
    """The source goes before the last of 6 steps, within a period of each clock."""
    inverted, edits = inverted_of(2, 6), random_edits(5)
    config = config_of("epsilon")
    passes = Passes(SplitUNet(exact), adaptor_of(kind, exact))

    def spec(**changes) -> GenerationSpec:
        return GenerationSpec(6, guidance, 0.84, 0.5, clock=clock, **changes)

    with Injection(exact) as injection:

        def edit(spec: GenerationSpec, store=None) -> torch.Tensor:
            rows, given = (None, None) if store is None else (ROWS, store)
            chosen = (passes, config, inverted.of(ROWS), edits, spec, injection)
            return generate(*chosen, given, rows)

        def features(spec: GenerationSpec, folder=None) -> FeatureStore:
            chosen = (passes, config, inverted, edits, spec, injection)
            return extract_features(*chosen, FeatureStore(folder))

        plain = edit(spec())
        dropped = edit(spec(drop_source=True))
        kept = spec(features="activations")
        in_memory, spilled = features(kept), features(kept, tmp_path / "features")
        found = [dropped, edit(kept, in_memory), edit(kept, spilled)]
        found.append(edit(spec(features="activations", drop_source=True), in_memory))
        bare = edit(GenerationSpec(6, guidance, 0, 0, clock=clock))
    assert in_memory.nbytes == spilled.nbytes > 0
    assert len(list((tmp_path / "features").iterdir())) == 5
    for each in found:
        torch.testing.assert_close(each, plain, rtol=0, atol=1e-4)
    assert (bare - plain).abs().max() > 1e-3


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("clock", [1, 2])
def test_the_optimisations_save_rows(exact, clock, guidance):
    inverted, edits = inverted_of(2, 8), random_edits(5)
    branches, config = (2 if guidance > 1 else 1), config_of("epsilon")
    passes = Counted(SplitUNet(exact), IdentityAdaptor())

    def rows(function, *rest, **changes) -> list[int]:
        chosen = GenerationSpec(8, guidance, 0.7, 0.4, clock=clock, **changes)
        count = inverted if function is extract_features else inverted.of(ROWS)
        passes.calls.clear()
        function(passes, config, count, edits, chosen, injection, *rest)
        full = [kind == "full" for kind, _ in passes.calls]
        assert full == [index % clock == 0 for index in range(len(full))]
        return [rows for _, rows in passes.calls]

    with Injection(exact) as injection:
        assert rows(generate) == [5 * (1 + branches)] * 8
        shorter = [5 * (1 + branches)] * 5 + [5 * branches] * 3
        assert rows(generate, drop_source=True) == shorter
        store = FeatureStore()
        kept = {"features": "activations"}
        # Once per source, and only while there is something to inject.
        assert rows(extract_features, store, **kept) == [2] * 5
        assert rows(generate, store, ROWS, **kept) == [5 * branches] * 8


@pytest.mark.parametrize("drop_source", [False, True])
def test_an_edit_does_not_depend_on_its_batch(exact, drop_source):
    inverted, edits = inverted_of(3, 5), random_edits(3)
    passes = Passes(SplitUNet(exact), adaptor_of("resnet", exact))
    more = {"clock": 2, "drop_source": drop_source}
    spec, config = GenerationSpec(5, 4.0, 0.8, 0.5, **more), config_of("epsilon")
    with Injection(exact) as injection:
        together = generate(passes, config, inverted, edits, spec, injection)
        part = edits.part(slice(1, 2))
        alone = generate(passes, config, inverted.of([1]), part, spec, injection)
    torch.testing.assert_close(alone, together[1:2], rtol=0, atol=1e-8)


def test_each_branch_has_its_own_pooled_prompt(exact):
    """Adaptors look at it: the source's is the empty prompt's."""
    given = []

    class Watching(Passes):
        def light(self, x, t, c, past, pooled=None, **kwargs):
            given.append(pooled)
            return super().light(x, t, c, past, pooled, **kwargs)

    inverted, edits = inverted_of(3, 4), random_edits(3)
    passes = Watching(SplitUNet(exact), adaptor_of("resnet", exact))
    spec = GenerationSpec(4, 4.0, 0.5, 0.5, clock=2, drop_source=True)
    config = config_of("epsilon")
    with Injection(exact) as injection:
        generate(passes, config, inverted, edits, spec, injection)
        extract_features(passes, config, inverted, edits, spec, injection)
    targets = edits.targets
    assert targets.empty_pooled is not None and edits.negative_pooled is not None
    empty = targets.empty_pooled.expand(3, -1)
    edited = torch.cat([edits.negative_pooled.expand(3, -1), targets.pooled])
    expected = [torch.cat([empty, edited]), edited, empty]
    assert len(given) == 3
    for one, other in zip(given, expected, strict=True):
        assert torch.equal(one, other)


def test_features_and_specs_that_do_not_go_together_are_refused(exact):
    inverted, edits = inverted_of(3, 8), random_edits(3)
    passes = Passes(SplitUNet(exact), IdentityAdaptor())
    config = config_of("epsilon")

    def spec(tau_f=0.7, tau_a=0.4, features="activations", **more) -> GenerationSpec:
        return GenerationSpec(8, 4.0, tau_f, tau_a, features=features, **more)

    with Injection(exact) as injection:

        def edit(spec: GenerationSpec, store=None) -> torch.Tensor:
            return generate(passes, config, inverted, edits, spec, injection, store)

        def keep(spec: GenerationSpec) -> FeatureStore:
            return extract_features(passes, config, inverted, edits, spec, injection)

        store = keep(spec())
        with pytest.raises(ValueError, match="'latents' of the generation, and some w"):
            edit(spec(features="latents"), store)
        with pytest.raises(ValueError, match="'activations' of the generation, and no"):
            edit(spec())
        # Too few features would make another image, and no one would know.
        for longer in (spec(tau_f=0.9), spec(tau_a=0.6), spec(tau_a=0.9)):
            with pytest.raises(ValueError, match=r"no features of up_blocks\.1\..* ke"):
                edit(longer, store)
        with pytest.raises(ValueError, match=r"no features of up_blocks\.1\..* kept"):
            edit(spec(), keep(spec(clock=2)))
        # Too many do no harm.
        shorter = spec(0.3, 0.2)
        expected = edit(spec(0.3, 0.2, "latents"))
        torch.testing.assert_close(edit(shorter, store), expected, rtol=0, atol=1e-4)
        elsewhere = spec(features="latents", conv_layer="up_blocks.2.resnets.0")
        for function in (edit, keep):
            with pytest.raises(ValueError, match=r"is at conv layer 'up_blocks\.1"):
                function(elsewhere)


def test_a_clock_without_an_adaptor_is_refused(exact, sources):
    passes, config = Passes(SplitUNet(exact)), config_of("epsilon")
    inverted = inverted_of(3, 4)
    spec, edits = GenerationSpec(4, 4.0, 0.5, 0.5, clock=2), random_edits(3)
    with pytest.raises(ValueError, match="clock 2 needs an adaptor"):
        invert(passes, config, sources, random_prompts(3, 3), InversionSpec(4, 2))
    with Injection(exact) as injection:
        for function in (generate, extract_features):
            with pytest.raises(ValueError, match="clock 2 needs an adaptor"):
                function(passes, config, inverted, edits, spec, injection)


# --- what a run remembers -------------------------------------------------------------


def remembered(passes, count: int) -> Memory:
    memory, clock = Memory(), Clock(4)
    generator = torch.Generator().manual_seed(8)
    for index in (0, 1):
        x = torch.randn(count, 4, 8, 8, generator=generator, dtype=torch.float64)
        c = torch.randn(count, 5, 24, generator=generator, dtype=torch.float64)
        pooled = torch.randn(count, 8, generator=generator, dtype=torch.float64)
        t = torch.tensor(900 - 100 * index)
        with torch.no_grad():
            memory.run(passes, clock, index, x, t, c, pooled)
    return memory


@pytest.mark.parametrize("kind", ["identity", "resnet", "extrapolation", "branch"])
def test_a_run_can_go_on_with_some_of_its_rows(exact, kind):
    if kind == "branch":
        passes = BranchPasses(BranchUNet(exact, 1))
    else:
        passes = Passes(SplitUNet(exact), adaptor_of(kind, exact))
    whole, part = remembered(passes, 3), remembered(passes, 3)
    part.keep_rows(slice(1, None))
    generator = torch.Generator().manual_seed(9)
    x = torch.randn(3, 4, 8, 8, generator=generator, dtype=torch.float64)
    c = torch.randn(3, 5, 24, generator=generator, dtype=torch.float64)
    pooled = torch.randn(3, 8, generator=generator, dtype=torch.float64)
    t, clock = torch.tensor(700), Clock(4)
    with torch.no_grad():
        expected = whole.run(passes, clock, 2, x, t, c, pooled)
        found = part.run(passes, clock, 2, x[1:], t, c[1:], pooled[1:])
    for one, other in zip(found, expected, strict=True):
        if other is None:
            continue  # no r_out, where the upsampled features are reused
        assert len(one) == 2
        torch.testing.assert_close(one, other[1:], rtol=0, atol=1e-8)


def test_an_empty_memory_has_no_rows_to_forget():
    memory = Memory()
    memory.keep_rows(slice(1, None))
    assert memory.kept() == []


# --- timesteps ------------------------------------------------------------------------


def test_timesteps_are_those_of_sd():
    assert ddim_timesteps(SCHEDULE, 4) == (751, 501, 251, 1)
    assert ddim_timesteps(SCHEDULE, 999) == tuple(range(999, 0, -1))


@pytest.mark.parametrize("inversion", [50, 100, 200, 500, 999])
def test_fifty_steps_fit_finer_inversions(inversion):
    generation = ddim_timesteps(SCHEDULE, 50)
    check_timesteps(ddim_timesteps(SCHEDULE, inversion)[::-1], generation)


@pytest.mark.parametrize(
    ("inversion", "missing", "grid"),
    [
        (25, 25, r"1, 41, 81, …, 961 \(25, 40 apart\)"),
        (20, 40, r"1, 51, 101, …, 951 \(20, 50 apart\)"),
        (10, 40, "1, 101, 201, 301, 401, 501, 601, 701, 801, 901"),
    ],
)
def test_fifty_steps_do_not_fit_coarser_ones(inversion, missing, grid):
    generation = ddim_timesteps(SCHEDULE, 50)
    message = (
        f"no latent for {missing} of the 50 timesteps of generation, such as 21: "
        rf"inversion visits {grid}, generation 1, 21, 41, …, 981 \(50, 20 apart\)"
    )
    with pytest.raises(ValueError, match=message):
        check_timesteps(ddim_timesteps(SCHEDULE, inversion)[::-1], generation)


@pytest.mark.parametrize("steps", [1, 3, 10, 20, 25, 30, 50, 77, 600, 999])
def test_equal_counts_always_fit(steps):
    timesteps = ddim_timesteps(SCHEDULE, steps)
    assert len(timesteps) == steps and len(set(timesteps)) == steps
    check_timesteps(timesteps[::-1], timesteps)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (1000, "reach timestep 1000, and the model has 0 to 999; take 999 steps"),
        (1001, "1001 DDIM steps are not between 1 and 1000"),
        (0, "0 DDIM steps are not between 1 and 1000"),
    ],
)
def test_steps_beyond_the_schedule_are_refused(steps, message):
    with pytest.raises(ValueError, match=message):
        ddim_timesteps(SCHEDULE, steps)
    # A schedule that starts at 0 has as many steps as timesteps.
    assert len(ddim_timesteps({**SCHEDULE, "steps_offset": 0}, 1000)) == 1000


# --- specs ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "step count 0 is less than 1"),
        ({"guidance": 0.5}, "guidance 0.5 is less than 1"),
        ({"tau_f": -0.1}, "tau_f -0.1 is not within 0 and 1"),
        ({"tau_f": float("nan")}, "tau_f nan is not within 0 and 1"),
        ({"tau_a": 1.1}, "tau_a 1.1 is not within 0 and 1"),
        ({"clock": 0}, "clock 0 is less than 1"),
        ({"features": "both"}, "features 'both' is not latents or activations"),
    ],
)
def test_bad_generations_are_refused(change, message):
    good = {"steps": 8, "guidance": 3.0, "tau_f": 0.8, "tau_a": 0.5}
    with pytest.raises(ValueError, match=message):
        GenerationSpec(**{**good, **change})


@pytest.mark.parametrize(
    ("steps", "clock", "message"),
    [(0, 1, "step count 0 is less than 1"), (5, 0, "clock 0 is less than 1")],
)
def test_bad_inversions_are_refused(steps, clock, message):
    with pytest.raises(ValueError, match=message):
        InversionSpec(steps, clock)


@pytest.mark.parametrize(
    ("steps", "tau_f", "tau_a", "conv", "attention"),
    [(50, 0.8, 0.5, 40, 25), (25, 0.8, 0.5, 20, 12), (10, 0.25, 0.39, 2, 3)],
)
def test_fractions_are_cut_to_whole_steps(steps, tau_f, tau_a, conv, attention):
    spec = GenerationSpec(steps, 15.0, tau_f, tau_a)
    found = (spec.conv_steps, spec.attention_steps, spec.injected_steps)
    assert found == (conv, attention, max(conv, attention))
    assert (spec.branches, GenerationSpec(8, 1.0, 0, 0).branches) == (2, 1)


# --- the mini model -------------------------------------------------------------------


@pytest.fixture(scope="module")
def mini(root) -> StableDiffusionPipeline:
    return load_pipeline(root / "resources" / "mini" / "stable-diffusion")


@pytest.fixture(scope="module")
def pictures() -> SimpleNamespace:
    """Four scenes of the test split, and what they show."""
    seeds = scenes.split_seeds("test", 4)
    shown = [scenes.render(scenes.sample_scene(seed)) for seed in seeds]
    images = torch.from_numpy(np.round(np.stack(shown) * 255).astype(np.uint8))
    prompts = captions("test", 4)
    return SimpleNamespace(images=images.permute(0, 3, 1, 2), prompts=prompts)


def psnr(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    errors = (one.double() - other.double()).square().flatten(1).mean(dim=1)
    return 10 * torch.log10(255**2 / errors)


def test_a_scene_comes_back_from_its_inversion(mini, pictures):
    """Measured: at most 0.6 dB below what the autoencoder alone leaves."""
    clean = encode_images(mini.vae, pictures.images)
    coded = psnr(decode_latents(mini, clean), pictures.images)
    passes, config = Passes(SplitUNet(mini.unet)), mini.scheduler.config
    prompts = encode_prompts(mini, pictures.prompts)
    inverted = invert(passes, config, clean, prompts, InversionSpec(50))
    edits = encode_edits(mini, pictures.prompts, "")
    spec = GenerationSpec(50, 1.0, 0, 0)
    with Injection(mini.unet) as injection:
        latents = generate(passes, config, inverted, edits, spec, injection)
    again = psnr(decode_latents(mini, latents), pictures.images)
    assert (coded - again).max() < 2
    # The last latent is noise: nothing of the picture is in sight.
    assert psnr(decode_latents(mini, inverted.at(981)), pictures.images).max() < 15


def test_prompts_of_edits_are_encoded_with_their_negative(mini):
    def pool(texts) -> torch.Tensor:
        return torch.tensor([[float(len(text))] for text in texts])

    edits = encode_edits(mini, ["a red ring", "a blue star on sand"], "ugly", pool)
    alone = encode_prompts(mini, ["ugly"], pool)
    assert len(edits.targets) == 2
    torch.testing.assert_close(edits.negative, alone.text)
    torch.testing.assert_close(edits.targets.empty, alone.empty)
    assert edits.negative_pooled is not None and edits.targets.pooled is not None
    assert edits.negative_pooled.tolist() == [[4.0]]
    assert edits.targets.pooled.tolist() == [[10.0], [19.0]]
    second = edits.part(slice(1, 2))
    target = encode_prompts(mini, ["a blue star on sand"])
    torch.testing.assert_close(second.targets.text, target.text)
    assert torch.equal(second.negative, edits.negative)
    assert encode_edits(mini, ["a red ring"], "ugly").negative_pooled is None
