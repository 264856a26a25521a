import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from clockwork_experiments.base import storage
from clockwork_experiments.data import edit_sets
from clockwork_experiments.data.edit_sets import EditSet, EditSetSpec, Sampling

SIZE = 16


def paint(path: Path, colour=(10, 20, 30), size=(SIZE, SIZE), mode="RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).convert(mode).save(path)


def write_yaml(folder: Path, *entries: object, name: str = "prompts.yaml") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(yaml.safe_dump(list(entries)), encoding="utf-8")


def real(image: str, *targets: str, **more: object) -> dict[str, object]:
    return {"init_img": image, "target_prompts": list(targets or ["a cat"]), **more}


FAKE = {
    "source_prompt": "a photo of a horse",
    "target_prompts": ["a photo of a zebra", "a sketch of a horse"],
    "seed": 7,
    "scale": 7.5,
    "ddim_steps": 50,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with three images, each of its own colour."""
    folder = tmp_path / "imagenetr-ti2i"
    paint(folder / "panda/cartoon_30.png", (1, 0, 0))
    paint(folder / "castle/embroidery_2.png", (2, 0, 0))
    paint(folder / "hummingbird/origami_11.png", (3, 0, 0))
    return folder


# --- reading the layout --------------------------------------------------------------


def test_the_layout_of_the_benchmark_is_read(folder):
    write_yaml(
        folder,
        real("/ImageNetR-TI2I/panda/cartoon_30.png", "p1", "p2", "p3"),
        real("/ImageNetR-TI2I/castle/embroidery_2.png", "c1", source_prompt=" mine "),
        real("/ImageNetR-TI2I/hummingbird/origami_11.png", "h1", "h2"),
    )
    layout = edit_sets.read_layout(folder, SIZE)
    assert layout.edits == EditSet(
        ids=("panda-cartoon_30", "castle-embroidery_2", "hummingbird-origami_11"),
        source_prompts=("a cartoon of a panda", "mine", "an origami of a hummingbird"),
        # Every source's first target prompt, then every source's second, …
        pair_sources=(0, 1, 2, 0, 2, 0),
        target_prompts=("p1", "c1", "h1", "p2", "h2", "p3"),
    )
    assert layout.targets is None
    for red, image in enumerate(layout.sources, 1):
        assert image.dtype == torch.uint8 and image.shape == (3, SIZE, SIZE)
        assert image[:, 0, 0].tolist() == [red, 0, 0]


@pytest.mark.parametrize(
    "name",
    [
        "panda/cartoon_30.png",
        "/panda/cartoon_30.png",
        "imagenetr-ti2i/panda/cartoon_30.png",
        "/ImageNetR-TI2I/Panda/Cartoon_30.PNG",
        "/another-name-of-the-folder/panda/cartoon_30.png",
    ],
)
def test_an_image_is_found_however_its_path_begins(folder, name):
    write_yaml(folder, real(name))
    layout = edit_sets.read_layout(folder, SIZE)
    assert layout.sources[0][0, 0, 0] == 1
    assert layout.edits.ids == ("panda-cartoon_30",)
    assert layout.edits.source_prompts == ("a cartoon of a panda",)


def test_a_folder_inside_with_the_folders_own_name_comes_first(folder):
    paint(folder / "imagenetr-ti2i/panda/cartoon_30.png", (9, 0, 0))
    write_yaml(folder, real("/imagenetr-ti2i/panda/cartoon_30.png"))
    assert edit_sets.read_layout(folder, SIZE).sources[0][0, 0, 0] == 9


@pytest.mark.parametrize(
    ("path", "prompt"),
    [
        ("elephant/art_1.png", "an art of an elephant"),
        ("unicorn/oil_painting_12.png", "an oil painting of a unicorn"),
        ("hour_glass/sketch.png", "a sketch of an hour glass"),
    ],
)
def test_articles_follow_the_sound(folder, path, prompt):
    paint(folder / path)
    write_yaml(folder, real(path))
    assert edit_sets.read_layout(folder, SIZE).edits.source_prompts == (prompt,)


@pytest.mark.parametrize("path", ["cartoon_30.png", "panda/30.png", "12/cartoon_3.png"])
def test_a_path_that_does_not_say_what_it_shows_needs_a_prompt(folder, path):
    paint(folder / path)
    write_yaml(folder, real("panda/cartoon_30.png"), real(path))
    with pytest.raises(ValueError, match=r"entry 2 lacks source_prompt, and .* is not"):
        edit_sets.read_layout(folder, SIZE)
    write_yaml(folder, real(path, source_prompt="a panda"))
    layout = edit_sets.read_layout(folder, SIZE)
    assert layout.edits.source_prompts == ("a panda",)


def test_fake_sources_say_how_they_are_sampled(tmp_path):
    write_yaml(tmp_path, FAKE, {**FAKE, "seed": 8, "scale": 10})
    layout = edit_sets.read_layout(tmp_path, SIZE)
    assert layout.sources == (Sampling(7, 7.5, 50), Sampling(8, 10.0, 50))
    assert layout.edits.ids == ("a-photo-of-a-horse-7", "a-photo-of-a-horse-8")
    assert layout.edits.pair_sources == (0, 1, 0, 1)
    assert layout.edits.target_prompts[1] == "a photo of a zebra"


def test_exact_edits_are_in_the_order_of_the_pairs(folder):
    for red in range(10, 15):
        paint(folder / f"edits/{red}.png", (red, 0, 0))
    write_yaml(
        folder,
        real(
            "panda/cartoon_30.png",
            *("a", "b", "c"),
            target_imgs=["edits/10.png", "/ImageNetR-TI2I/edits/11.png"]
            + ["edits/12.png"],
        ),
        real(
            "castle/embroidery_2.png",
            *("d", "e"),
            target_imgs=["edits/13.png", "edits/14.png"],
        ),
    )
    layout = edit_sets.read_layout(folder, SIZE)
    assert layout.edits.target_prompts == ("a", "d", "b", "e", "c")
    assert layout.targets[:, 0, 0, 0].tolist() == [10, 13, 11, 14, 12]


def test_ids_are_unique_and_safe_whatever_the_paths(folder):
    names = ["panda/a b?.png", "panda/a-b.png", "Panda-a-b.png", f"{'x' * 150}.png"]
    for name in [*names, "ü.png"]:
        paint(folder / name)
    write_yaml(
        folder,
        *(
            real(name, source_prompt="x")
            for name in [*names, names[1], "/x/panda/a-b.png", "ü.png"]
        ),
        {**FAKE, "source_prompt": "../" * 50},
    )
    # EditSet itself rejects others.
    ids = edit_sets.read_layout(folder, SIZE).edits.ids
    assert ids[:3] == ("panda-a-b", "panda-a-b-2", "Panda-a-b-3")
    assert ids[4:6] == ("panda-a-b-4", "panda-a-b-5")
    assert ids[6] == "source"


def test_images_are_converted_when_asked(folder):
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = (200, 100, 50)
    path = folder / "panda/sketch_1.png"
    Image.fromarray(wide).save(path)
    paint(folder / "panda/grey_2.png", (90, 90, 90), (SIZE, SIZE), "L")
    write_yaml(folder, real("panda/sketch_1.png"), real("panda/grey_2.png"))
    with pytest.raises(ValueError) as failure:
        edit_sets.read_layout(folder, SIZE)
    assert str(failure.value) == (
        f"{folder / 'prompts.yaml'}: 2 of 2 images are not 16×16 RGB: "
        "panda/sketch_1.png (60×20 RGB), panda/grey_2.png (16×16 L); "
        "`convert: true` converts them"
    )
    wide_one, grey = edit_sets.read_layout(folder, SIZE, convert=True).sources
    # The middle square is all that is left.
    assert wide_one.shape == (3, SIZE, SIZE)
    assert wide_one.flatten(1).unique(dim=1).T.tolist() == [[200, 100, 50]]
    assert grey.flatten(1).unique(dim=1).T.tolist() == [[90, 90, 90]]


def test_a_photograph_on_its_side_is_set_upright(folder):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    half = np.zeros((SIZE, 2 * SIZE, 3), np.uint8)
    half[:, SIZE:] = 255
    Image.fromarray(half).save(folder / "panda/photo_1.png", exif=exif)
    write_yaml(folder, real("panda/photo_1.png"))
    (image,) = edit_sets.read_layout(folder, SIZE, convert=True).sources
    assert image[0, 0].max() < 10 and image[0, -1].min() > 245


def test_conversion_leaves_an_image_that_fits_as_it_is(folder):
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "panda/noise_1.png")
    write_yaml(folder, real("panda/noise_1.png"))
    (image,) = edit_sets.read_layout(folder, SIZE, convert=True).sources
    assert np.array_equal(image.permute(1, 2, 0).numpy(), pixels)


def test_all_missing_images_are_named_in_one_line(folder):
    target_imgs = ["edits/1.png", "panda/cartoon_30.png"]
    write_yaml(
        folder,
        real("panda/cartoon_30.png", "a", "b", target_imgs=target_imgs),
        real("panda/gone_1.png", "a", target_imgs=["edits/1.png"]),
    )
    with pytest.raises(ValueError) as failure:
        edit_sets.read_layout(folder, SIZE)
    assert str(failure.value) == (
        f"{folder / 'prompts.yaml'}: 2 of 3 images are missing: "
        "edits/1.png, panda/gone_1.png"
    )


def test_a_damaged_image_is_named(folder):
    path = folder / "panda/cartoon_30.png"
    write_yaml(folder, real("panda/cartoon_30.png"))
    noise = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"no image", b""):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"cartoon_30.png is not a readable image"):
            edit_sets.read_layout(folder, SIZE)


def test_the_yaml_must_be_one_list(folder):
    def message(prompts: str = "") -> str:
        with pytest.raises(ValueError) as failure:
            edit_sets.read_layout(folder, SIZE, prompts)
        assert "\n" not in str(failure.value)
        return str(failure.value)

    assert message() == f"{folder} holds no *.yaml"
    assert message("mine.yaml") == f"{folder / 'mine.yaml'} does not exist"
    path = folder / "b.yaml"
    for text, expected in (
        ("a: 1", "is not a list of sources"),
        ("", "is not a list of sources"),
        ("[]", "names no source"),
        ("- [", "is not valid YAML: "),
        ("- !!python/object/apply:os.getcwd []", "is not valid YAML: could not"),
        ("- 3", ", entry 1 is not a mapping: 3"),
    ):
        path.write_text(text)
        assert message().startswith(f"{path} {expected}".replace(" ,", ","))
    path.write_bytes(b"- \xff")
    assert "b.yaml: line 1 is not UTF-8 text" in message()
    write_yaml(folder, real("panda/cartoon_30.png"), name="a.yaml")
    assert message() == (
        f"{folder} holds several *.yaml, a.yaml, b.yaml; choose by `prompts`"
    )
    assert len(edit_sets.read_layout(folder, SIZE, "a.yaml").sources) == 1
    with pytest.raises(ValueError, match="gone is not a folder"):
        edit_sets.read_layout(folder / "gone", SIZE)


IMAGE = "panda/cartoon_30.png"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (real(IMAGE, prompt="x"), "unknown key 'prompt'; known are init_img, source_"),
        (real(IMAGE, target_prompts=[]), "target_prompts is empty"),
        ({"init_img": IMAGE}, "target_prompts is empty"),
        (real(IMAGE, target_prompts="a cat"), "target_prompts 'a cat' is not a list"),
        (real(IMAGE, "a", " "), "target_prompts, item 2 is empty"),
        (real(IMAGE, target_prompts=["a", 3]), "target_prompts, item 2 3 is not a"),
        (real(IMAGE, source_prompt=""), "source_prompt is empty"),
        ({"target_prompts": ["a"]}, "has neither init_img nor seed"),
        (real(IMAGE, seed=1), "has init_img and seed: is the source an image, or"),
        (real(""), "init_img is empty"),
        (real("../secret.png"), "'../secret.png' leaves the folder"),
        (real("/panda/../../secret.png"), "leaves the folder"),
        (real("/"), "'/' leaves the folder"),
        (real(IMAGE, target_imgs=["../../x.png"]), "'../../x.png' leaves the folder"),
        (
            real(IMAGE, "a", "b", target_imgs=[IMAGE]),
            "has 1 target_imgs for 2 target_prompts",
        ),
        ({**FAKE, "scale": None}, "has a seed and lacks scale"),
        ({"seed": 1, "target_prompts": ["a"]}, "lacks source_prompt, scale, ddim_st"),
        ({**FAKE, "seed": -1}, "seed -1 is not a whole number from 0 on"),
        ({**FAKE, "seed": "7"}, "seed '7' is not a whole number"),
        ({**FAKE, "ddim_steps": 0}, "ddim_steps 0 is not a whole number from 1 on"),
        ({**FAKE, "scale": 0.5}, "scale 0.5 is not a number from 1 on"),
        ({**FAKE, "scale": float("nan")}, "scale nan is not a number from 1 on"),
    ],
)
def test_a_wrong_entry_is_named_in_one_line(folder, entry, message):
    paint(folder.parent / "secret.png")
    write_yaml(folder, real("castle/embroidery_2.png"), entry)
    with pytest.raises(ValueError) as failure:
        edit_sets.read_layout(folder, SIZE)
    assert f"{folder / 'prompts.yaml'}, entry 2" in str(failure.value)
    assert message in str(failure.value) and "\n" not in str(failure.value)


def test_exact_edits_are_given_to_all_or_to_none(folder):
    write_yaml(folder, real(IMAGE, "a", target_imgs=[IMAGE]), real(IMAGE, "b"))
    with pytest.raises(ValueError, match="1 of 2 entries have target_imgs; give them"):
        edit_sets.read_layout(folder, SIZE)


# --- the prepared form ---------------------------------------------------------------

SET = EditSet(("a", "b"), ("a dog", "an owl"), (0, 1, 1), ("a cat", "a hen", "ein Ü"))


def test_a_set_comes_back_as_it_was_written(tmp_path):
    path = tmp_path / "sets" / "real.json"
    edit_sets.write_set(path, SET)
    assert edit_sets.read_set(path) == SET
    assert json.loads(path.read_text()) == {
        "sources": [{"id": "a", "prompt": "a dog"}, {"id": "b", "prompt": "an owl"}],
        "pairs": [
            {"source": 0, "prompt": "a cat"},
            {"source": 1, "prompt": "a hen"},
            {"source": 1, "prompt": "ein Ü"},
        ],
    }


@pytest.mark.parametrize(
    ("section", "value", "message"),
    [
        (None, [], "is not a mapping of sources and pairs"),
        (None, {"sources": []}, "is not a mapping of sources and pairs"),
        ("sources", {}, "sources is not a list"),
        ("sources", [], "the set has no source"),
        ("sources", [{"id": "a"}], r"sources\[0\] is not a mapping of id \(str\) and"),
        ("pairs", [{"source": "0", "prompt": "x"}], r"pairs\[0\] is not a mapping of"),
        ("pairs", [{"source": True, "prompt": "x"}], r"pairs\[0\] is not a mapping of"),
        ("pairs", [{"source": 2, "prompt": "x"}], "a pair's source 2 is not one of 2"),
        ("pairs", [{"source": -1, "prompt": "x"}], "a pair's source -1 is not one"),
        ("pairs", [{"source": 0, "prompt": "x"}], "without a target prompt: b"),
        ("pairs", [{"source": 0, "prompt": " "}], "a target prompt is empty"),
        (
            "sources",
            [{"id": "a", "prompt": "x"}, {"id": "A", "prompt": "y"}],
            "id 'a' is of 2 sources",
        ),
        ("sources", [{"id": "../a", "prompt": "x"}], "id '../a' is not letters"),
        ("sources", [{"id": "a" * 101, "prompt": "x"}], "is not letters, digits"),
        ("sources", [{"id": "a", "prompt": ""}], "a source prompt is empty"),
    ],
)
def test_a_damaged_set_is_named(tmp_path, section, value, message):
    path = tmp_path / "set.json"
    edit_sets.write_set(path, SET)
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, section: value} if section else value))
    with pytest.raises(ValueError, match=rf"set.json.*{message}"):
        edit_sets.read_set(path)


def test_parts_of_different_length_make_no_set():
    with pytest.raises(ValueError, match="1 sources and 2 source prompts"):
        EditSet(("a",), ("x", "y"), (0,), ("z",))
    with pytest.raises(ValueError, match="2 pairs and 1 target prompts"):
        EditSet(("a",), ("x",), (0, 0), ("z",))


def test_images_must_be_of_the_set(tmp_path):
    path = tmp_path / "set.safetensors"
    sources = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    targets = torch.ones(3, 3, 8, 8, dtype=torch.uint8)
    storage.write_tensors(path, {"sources": sources, "targets": targets})
    found, edited = edit_sets.read_images(path, SET)
    assert torch.equal(found, sources) and torch.equal(edited, targets)
    storage.write_tensors(path, {"sources": sources})
    assert edit_sets.read_images(path, SET)[1] is None
    for tensors, message in (
        ({"targets": targets}, "lacks the tensor 'sources'"),
        (
            {"sources": targets},
            r"sources are torch.uint8 \(3, 3, 8, 8\), not uint8 \(2",
        ),
        ({"sources": sources.float()}, "sources are torch.float32"),
        (
            {"sources": sources, "targets": targets[..., :4, :4]},
            r"targets are torch.uint8 \(3, 3, 4, 4\)",
        ),
    ):
        storage.write_tensors(path, tensors)
        with pytest.raises(ValueError, match=f"set.safetensors.*{message}"):
            edit_sets.read_images(path, SET)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source": "web"}, "source 'web' is not scenes or folder"),
        ({"size": 0}, "size 0 is less than 1"),
        ({"source": "folder"}, "source 'folder' and a path need each other"),
        ({"path": "x"}, "source 'folder' and a path need each other"),
        ({"prompts": "../x.yaml"}, "prompts '../x.yaml' is not the name of a file"),
    ],
)
def test_settings_that_make_no_set_are_rejected(settings, message):
    with pytest.raises(ValueError, match=message):
        EditSetSpec(**{"source": "scenes", "size": 64, **settings})
