from dataclasses import fields, replace

import numpy as np
import pytest
from checkout import ROOT
from transformers import CLIPTokenizer

from clockwork_experiments.mini import scenes
from clockwork_experiments.mini.teacher import build_tokenizer_of_world

SEEDS = range(1_100_000, 1_100_040)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer_of_world()


def test_a_seed_always_gives_the_same_scene_image_and_caption():
    for seed in SEEDS[:5]:
        one, other = (scenes.sample_scene(seed, two_objects=0.5) for _ in range(2))
        assert one == other
        assert np.array_equal(scenes.render(one), scenes.render(other))
        assert scenes.caption(one, seed) == scenes.caption(other, seed)
    assert len({scenes.sample_scene(seed) for seed in SEEDS}) == len(SEEDS)


def test_splits_are_disjoint_and_bounded():
    ranges = sorted(scenes.SPLITS.values(), key=lambda r: r.start)
    for before, after in zip(ranges, ranges[1:], strict=False):
        assert before.stop <= after.start
    assert scenes.split_seeds("test", 2, 3) == [1_100_003, 1_100_004]
    with pytest.raises(ValueError, match="split 'dev' is not one of train, validation"):
        scenes.split_seeds("dev", 1)
    with pytest.raises(ValueError, match="has 100000 seeds, not 100001"):
        scenes.split_seeds("test", 1, 100_000)


def test_every_caption_is_made_of_whole_words(tokenizer):
    for seed in SEEDS:
        for chance in (0.0, 1.0):
            text = scenes.caption(scenes.sample_scene(seed, chance), seed)
            tokens = tokenizer.tokenize(text)
            assert "".join(tokens).replace("</w>", " ").replace(" ,", ",").strip() == (
                text
            )
            assert all(token.endswith("</w>") for token in tokens), text
            assert len(tokenizer(text).input_ids) <= tokenizer.model_max_length, text


def test_every_word_of_the_grammar_is_one_token(tokenizer):
    words = {
        *scenes.SHAPES,
        *scenes.COLOURS,
        *scenes.TEXTURES[1:],  # plain is not said
        *scenes.SIZES,
        *(word for name in scenes.POSITIONS for word in name.split()),
    }
    assert [w for w in words if tokenizer.tokenize(w) != [f"{w}</w>"]] == []


@pytest.mark.parametrize("kind", scenes.EDITS)
def test_an_edit_changes_what_it_says_and_nothing_else(kind):
    attribute = {
        "recolour": "colour",
        "retexture": "texture",
        "reshape": "shape",
        "resize": "size",
        "move": "position",
        "background": "background",
    }[kind]
    for seed in SEEDS[:10]:
        scene = scenes.sample_scene(seed, two_objects=0.5)
        edit = scenes.sample_edit(scene, seed, kind)
        assert edit.kind == attribute
        assert edit.scene.objects[1:] == scene.objects[1:]
        if kind == "background":
            assert edit.scene == replace(scene, background=edit.scene.background)
            assert edit.scene.background != scene.background
        else:
            before, after = scene.objects[0], edit.scene.objects[0]
            changed = {
                field.name
                for field in fields(before)
                if getattr(before, field.name) != getattr(after, field.name)
            }
            assert changed == {attribute}
            assert edit.scene.background == scene.background
            assert getattr(after, attribute) in edit.instruction
        assert not np.array_equal(scenes.render(scene), scenes.render(edit.scene))


def test_recolouring_leaves_the_ground_alone():
    scene = scenes.sample_scene(SEEDS[0])
    edited = scenes.EDITS["recolour"](scene, "pink").scene
    outside = scenes.object_mask(scene) == 0
    assert np.array_equal(scenes.render(scene)[outside], scenes.render(edited)[outside])


def test_images_are_antialiased_and_in_range():
    for seed in SEEDS[:10]:
        scene = scenes.sample_scene(seed, two_objects=0.5)
        image, mask = scenes.render(scene), scenes.object_mask(scene)
        assert image.dtype == np.float32 and image.shape == (64, 64, 3)
        assert image.min() >= 0 and image.max() <= 1
        partly = (mask > 0.02) & (mask < 0.98)
        assert 10 < partly.sum() < 600
        assert 40 < (mask == 1).sum() < 1500
        outline = scenes.edge_map(scene)
        assert set(np.unique(outline[mask == 0] > 0.8)) == {False}
        assert (outline[partly] > 0.5).all()


def test_every_value_can_be_drawn_and_looks_different():
    base = scenes.SceneObject("circle", "red", "plain", "large", "centre")
    for attribute, values in {
        "shape": scenes.SHAPES,
        "colour": scenes.COLOURS,
        "texture": scenes.TEXTURES,
        "size": scenes.SIZES,
        "position": scenes.POSITIONS,
    }.items():
        images = [
            scenes.render(
                scenes.Scene((replace(base, **{attribute: value}),), "sand")
            ).tobytes()
            for value in values
        ]
        assert len(set(images)) == len(values), attribute


def test_degrading_keeps_block_means():
    image = scenes.render(scenes.sample_scene(SEEDS[0]))
    coarse = scenes.degrade(image, seed=0, factor=4, noise=0.0)
    assert np.allclose(coarse[:4, :4], image[:4, :4].mean((0, 1)), atol=1e-6)
    with pytest.raises(ValueError, match="factor 5 is not a divisor of 64"):
        scenes.degrade(image, seed=0, factor=5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": "cube"}, "shape 'cube' is not one of circle, square"),
        ({"colour": "teal"}, "colour 'teal' is not one of red"),
        ({"texture": "furry"}, "texture 'furry' is not one of plain"),
        ({"size": "huge"}, "size 'huge' is not one of small, large"),
        ({"position": "up"}, "position 'up' is not one of top left"),
    ],
)
def test_illegal_objects_are_refused(change, message):
    values = {
        "shape": "circle",
        "colour": "red",
        "texture": "plain",
        "size": "small",
        "position": "top",
    }
    with pytest.raises(ValueError, match=message):
        scenes.SceneObject(**{**values, **change})


def test_illegal_scenes_and_edits_are_refused():
    scene = scenes.sample_scene(0)
    with pytest.raises(ValueError, match="background 'moon' is not one of sand"):
        replace(scene, background="moon")
    with pytest.raises(ValueError, match="1 or 2 objects, not 0"):
        scenes.Scene((), "sand")
    with pytest.raises(ValueError, match="edit 'melt' is not one of recolour"):
        scenes.sample_edit(scene, 0, "melt")
    with pytest.raises(ValueError, match="colour 'teal'"):
        scenes.EDITS["recolour"](scene, "teal")


def test_the_shipped_tokenizer_is_the_one_that_is_built():
    """Its trainer is not deterministic; other numbers would scramble the captions."""
    folder = ROOT / "resources" / "mini" / "stable-diffusion" / "tokenizer"
    shipped = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    assert build_tokenizer_of_world().get_vocab() == shipped.get_vocab()
