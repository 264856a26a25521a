"""The open world: scenes, captions, exact edits, the judge's questions, the gate."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

from clockwork_experiments.mini import teacher
from clockwork_experiments.world import (
    captioned,
    captions,
    edits,
    gate,
    judge,
    scenes,
    verdicts,
)

SEEDS = range(1_100_000, 1_100_200)
SCENES = [scenes.sample_scene(seed) for seed in SEEDS]


def test_a_seed_always_gives_the_same_scene_image_and_caption():
    for seed in SEEDS[:5]:
        one, other = scenes.sample_scene(seed), scenes.sample_scene(seed)
        assert one == other
        assert np.array_equal(scenes.render(one), scenes.render(other))
        assert captions.caption_of(one, seed) == captions.caption_of(other, seed)
    assert len(set(SCENES)) == len(SCENES)


def test_images_are_finite_unit_and_lie_within_their_objects_masks():
    for scene in SCENES[:20]:
        image, mask = scenes.render(scene), scenes.object_mask(scene)
        assert image.shape == (64, 64, 3)
        assert image.dtype == np.float32
        assert 0 <= image.min() <= image.max() <= 1
        bare = scenes.render(replace(scene, light=scene.light))
        assert np.array_equal(image, bare)
        recoloured = replace(
            scene, things=tuple(replace(t, colour="white") for t in scene.things)
        )
        changed = np.abs(scenes.render(recoloured) - image).max(axis=2) > 0
        # Each object's outline, and no pixel beyond it.
        assert not (changed & (mask == 0)).any()


def test_equal_kinds_are_twins_and_objects_lie_inside():
    twins = 0
    for scene in SCENES:
        for index, one in enumerate(scene.things):
            assert one.radius <= min(one.x, one.y, 64 - one.x, 64 - one.y)
            for other in scene.things[:index]:
                if one.kind == other.kind:
                    twins += 1
                    assert one.mirrored != other.mirrored
                    assert (one.colour, one.texture, one.radius) == (
                        other.colour,
                        other.texture,
                        other.radius,
                    )
    assert twins > 20


def test_what_a_caption_says_is_true_of_its_scene_and_false_of_many_others():
    wrong = 0
    for seed, scene in zip(SEEDS, SCENES, strict=True):
        caption = captions.caption_of(scene, seed)
        verdict = judge.as_captioned(caption, judge.truth(scene))
        assert verdict
        assert all(verdict.values()), (caption.text, verdict)
        other = judge.truth(scenes.sample_scene(seed + 1))
        wrong += not all(judge.as_captioned(caption, other).values())
    assert wrong > 0.9 * len(SCENES)


def test_captions_leave_every_attribute_open_now_and_then():
    said = [captions.caption_of(s, k) for k, s in zip(SEEDS, SCENES, strict=True)]
    mentions = [m for caption in said for m in caption.mentions]
    for name in ("kind", "colour", "texture", "size", "place"):
        share = np.mean([getattr(m, name) is not None for m in mentions])
        assert 0 < share < 1, name
    for name in ("ground", "hour", "light", "relation"):
        share = np.mean([getattr(c, name) is not None for c in said])
        assert 0 < share < 1, name
    one = SCENES[0]
    assert len({captions.caption_of(one, seed).text for seed in range(50)}) > 5


def test_a_caption_is_whole_words_within_the_text_encoders_length():
    tokenizer = teacher.build_tokenizer_of_world()
    for seed, scene in zip(SEEDS, SCENES, strict=True):
        text = captions.caption_of(scene, seed).text
        assert all(t.endswith("</w>") for t in tokenizer.tokenize(text)), text
        assert len(tokenizer(text).input_ids) <= tokenizer.model_max_length


@pytest.mark.parametrize("kind", edits.EDITS)
def test_an_edit_changes_what_it_says_and_its_prompts_differ(kind):
    done = 0
    for seed, scene in zip(SEEDS, SCENES, strict=True):
        if not edits.choices(scene, kind):
            continue
        edit = edits.sample_edit(scene, seed, kind)
        source, (target,) = edits.prompts(scene, [edit], seed)
        assert source != target
        assert edit.scene != scene
        attribute = {"background": "ground", "hour": "hour", "light": "light"}.get(kind)
        if attribute is not None:
            value = getattr(edit.scene, attribute)
            assert replace(scene, **{attribute: value}) == edit.scene
        else:
            assert (edit.scene.ground, edit.scene.hour, edit.scene.light) == (
                scene.ground,
                scene.hour,
                scene.light,
            )
        done += 1
    assert done > 20


def test_bad_values_are_named():
    with pytest.raises(ValueError, match="edit 'melt' is not one of recolour, "):
        edits.choices(SCENES[0], "melt")
    with pytest.raises(ValueError, match="hour 'noon' is not one of day, dusk, night"):
        replace(SCENES[0], hour="noon")
    with pytest.raises(ValueError, match="kind 'cube' is not one of circle, "):
        replace(SCENES[0].things[0], kind="cube")
    with pytest.raises(ValueError, match="a scene has 1 to 3 objects, not 0"):
        replace(SCENES[0], things=())


def test_parts_agree_in_every_scene_and_not_across_scenes():
    seen = [judge.truth(scene) for scene in SCENES]
    found = judge.agreement(seen)
    assert all(found.shadows)
    assert all(found.twins)
    assert found.pictures[0] == len(SCENES) < len(found.shadows)
    assert found.pictures[1] <= len(found.twins)
    shadows, twins = judge.chance(seen)
    assert 0.2 < shadows < 0.3
    assert twins < 0.1
    turned = replace(seen[0].things[0], light="none")
    assert not all(judge.agreement([replace(seen[0], things=(turned,))]).shadows)


def test_a_missing_object_makes_false_what_is_said_of_it():
    caption = captions.Caption(
        "a red fish and a blue boat",
        (
            captions.Mention(kind="fish", colour="red"),
            captions.Mention(kind="boat", colour="blue"),
        ),
    )
    fish = judge.SeenThing("fish", "red", "plain", "small", "left", "no", 20, 20)
    alone = judge.Seen((fish,), "sea", "day", "left")
    assert judge.as_captioned(caption, alone) == {"kind": False, "colour": False}
    boat = replace(fish, kind="boat", colour="green", x=45.0)
    both = replace(alone, things=(boat, fish))
    assert judge.as_captioned(caption, both) == {"kind": True, "colour": False}


def test_a_judge_learns_one_batch_by_heart_and_then_sees_it():
    torch.manual_seed(0)
    drawn = [scenes.sample_scene(seed) for seed in SEEDS[:4]]
    images = judge.images_of(judge._render, list(SEEDS[:4:2]) * 2)
    drawn = [scenes.sample_scene(seed) for seed in list(SEEDS[:4:2]) * 2]
    objects, pictures = judge._labels(drawn)
    model = judge.Judge(8)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(150):
        loss = judge.judge_loss(model, judge.to_unit(images), objects, pictures)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for seen, scene in zip(judge.look(model.eval(), images), drawn, strict=True):
        true = judge.truth(scene)
        named = {(t.kind, t.colour, t.light) for t in seen.things}
        assert named == {(t.kind, t.colour, t.light) for t in true.things}
        assert (seen.ground, seen.light) == (true.ground, true.light)


def test_left_out_skips_are_those_of_the_finer_levels_alone():
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        cross_attention_dim=8,
        attention_head_dim=2,
        norm_num_groups=4,
    ).eval()
    x, text = torch.randn(3, 4, 16, 16), torch.randn(3, 5, 8)
    timesteps = torch.tensor([900, 900, 900])
    got: dict[int, list[torch.Tensor]] = {}
    handles = [
        block.register_forward_pre_hook(
            lambda _, __, kwargs, i=index: (
                got.setdefault(i, list(kwargs["res_hidden_states_tuple"])) and None
            ),
            with_kwargs=True,
        )
        for index, block in enumerate(unet.up_blocks)
    ]
    with torch.no_grad():
        plain = unet(x, timesteps, text).sample
        with teacher.without_skips(unet, torch.tensor([0, 2, 3])):
            thinned = unet(x, timesteps, text).sample
        again = unet(x, timesteps, text).sample
    for handle in handles:
        handle.remove()
    assert torch.equal(plain, again)
    assert torch.equal(plain[0], thinned[0])
    assert not torch.allclose(plain[1], thinned[1])
    assert not torch.allclose(thinned[1], plain[2])


def test_a_criterion_meets_its_bar_or_does_not():
    assert gate.Criterion(0.69, 0, 1, 9).passes("< 0.7")
    assert not gate.Criterion(0.7, 0, 1, 9).passes("< 0.7")
    assert gate.Criterion(25.0, 0, 1, 9).passes("≥ 25")
    written = gate.to_json({"agreement, twins": gate.Criterion(0.5, 0.4, 0.6, 40)})
    assert written["gate"]["agreement, twins"]["passes"] is False
    assert written["gate"]["agreement, twins"]["bar"] == "≥ 0.75"


def test_layouts_differ_where_an_object_moved_or_is_another():
    seen = judge.truth(SCENES[0])
    first, *others = seen.things
    near = replace(seen, things=(replace(first, x=first.x + 3), *others))
    far = replace(seen, things=(replace(first, x=first.x + 9), *others))
    other = replace(seen, things=(replace(first, kind="none"), *others))
    assert not gate._other_layout(seen, near)
    assert gate._other_layout(seen, far)
    assert gate._other_layout(seen, other)
    assert gate._other_layout(seen, replace(seen, things=(*seen.things, first)))


def test_a_captions_scenes_are_as_it_says_and_vary_in_what_it_leaves_open():
    for index, (seed, scene) in enumerate(zip(SEEDS[:60], SCENES, strict=False)):
        caption = captions.caption_of(scene, seed)
        drawn = [captioned.scene_for(caption, k) for k in range(3)]
        for each in drawn:
            assert all(judge.as_captioned(caption, judge.truth(each)).values())
            seen = judge.agreement([judge.truth(each)])
            assert all(seen.shadows) and all(seen.twins)
        assert len({each.things[0].x for each in drawn}) == 3
        assert captioned.scene_for(caption, index) == captioned.scene_for(
            caption, index
        )
    open_to_much = captions.Caption("a fish", (captions.Mention(kind="fish"),))
    many = [captioned.scene_for(open_to_much, k) for k in range(200)]
    for name in ("ground", "hour", "light"):
        # As often as in the world itself.
        for value in {getattr(scene, name) for scene in SCENES}:
            here, there = (
                np.mean([getattr(scene, name) == value for scene in those])
                for those in (many, SCENES)
            )
            assert abs(here - there) < 0.13


def test_a_caption_that_contradicts_itself_is_named():
    two = captions.Mention(kind="fish", place="left")
    wrong = captions.Caption(
        "a fish on the left, right of a boat on the right",
        (two, captions.Mention(kind="boat", place="right")),
        relation="right of",
    )
    with pytest.raises(ValueError, match="no scene is found that 'a fish on the left"):
        captioned.scene_for(wrong, 0)


def test_pixels_name_the_frontmost_kind():
    scene = next(s for s in SCENES if min(scenes.visible_shares(s)) < 0.93)
    kinds = scenes.kind_map(scene)
    front = scene.things[-1]
    alone = scenes.kind_map(replace(scene, things=(front,)))
    assert (kinds[alone > 0] == alone.max()).all()
    assert ((kinds > 0) == (scenes.object_mask(scene) > 0.5)).mean() > 0.99


def test_faultless_pictures_are_all_right_and_others_by_their_share():
    said = [captions.caption_of(s, k) for k, s in zip(SEEDS, SCENES, strict=True)]
    right = [judge.truth(scene) for scene in SCENES]
    found = verdicts.shares(said, right)
    assert {score.value for score in found.values()} == {1.0}
    assert found[verdicts.ALL].n == len(SCENES)
    assert "by chance 2" in found[verdicts.SHADOWS].note
    others = right[1:] + right[:1]
    wrong = verdicts.shares(said, others)
    assert wrong[verdicts.ALL].value < 0.1
    # What no caption says still agrees.
    assert wrong[verdicts.SHADOWS].value == wrong[verdicts.TWINS].value == 1.0
    assert verdicts.share_said(said, right + others)[: len(said)].eq(1).all()
    assert verdicts.share_said(said, others).mean() < 0.6
    turned = replace(right[0], light="none")
    assert verdicts.share_agreed([right[0], turned])[0] == 1
    assert verdicts.share_agreed([right[0], turned])[1] < 1
    with pytest.raises(ValueError, match="3 pictures are not a whole number a caption"):
        verdicts.shares(said[:2], right[:3])
    table = verdicts.to_markdown("Title", wrong, found)
    assert "| shadows (by chance 2" in table and "100.0 [" in table


def test_captions_read_back_as_what_they_say() -> None:
    """Reading is the inverse of wording, over all that the world says."""
    for seed in range(2000):
        scene = scenes.sample_scene(seed)
        said = captions.caption_of(scene, seed + 10_000_000 * (seed % 4))
        assert captions.read(said.text) == said


@pytest.mark.parametrize(
    "text",
    ["", "a dog", "a red ring and", "two circle", "a circles", "a red ring, lit"],
)
def test_what_the_world_does_not_say_is_refused(text: str) -> None:
    """Words outside the grammar are named, not guessed at."""
    with pytest.raises(ValueError, match=r"no caption of the world|does not go with"):
        captions.read(text)
