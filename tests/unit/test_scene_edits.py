import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from clockwork_diffusion import encoding
from clockwork_experiments.base import storage
from clockwork_experiments.data import edit_sets
from clockwork_experiments.generate.text import (
    SamplerSpec,
    generators,
    sample,
)
from clockwork_experiments.models import loading
from clockwork_experiments.steps import make_scene_edits, prepare_edit_set
from clockwork_experiments.world import edit_sets as scene_edits
from clockwork_experiments.world import edits, scenes
from clockwork_experiments.world.edit_sets import SceneEditsSpec

MODEL = Path(__file__).parents[2] / "resources" / "mini" / "stable-diffusion"
SPEC = '{"source": "scenes", "size": 64}'


def prepare(spec: str, folder: Path | None, output: Path, model: Path | None = None):
    prepare_edit_set.prepare_edit_set(spec, output, folder, model)


def rendered(scene: scenes.Scene) -> torch.Tensor:
    pixels = np.round(scenes.render(scene) * 255).astype(np.uint8)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def test_a_real_set_is_read_back_with_its_prompts_and_exact_edits(tmp_path):
    spec = SceneEditsSpec(count=5, offset=40)
    scene_edits.write_layout(spec, tmp_path / "set")
    layout = edit_sets.read_layout(tmp_path / "set", scenes.SIZE)
    seeds = scenes.split_seeds("test", 5, 40)
    drawn = [scenes.sample_scene(seed) for seed in seeds]
    made = [
        [edits.sample_edit(scene, seed, kind) for kind in edits.KEEP_LAYOUT]
        for scene, seed in zip(drawn, seeds, strict=True)
    ]
    prompts = [edits.prompts(*each) for each in zip(drawn, made, seeds, strict=True)]
    assert layout.edits.source_prompts == tuple(source for source, _ in prompts)
    for image, scene in zip(layout.sources, drawn, strict=True):
        assert torch.equal(image, rendered(scene))
    # All recolourings, then all retexturings, and so on.
    assert layout.edits.pair_sources == tuple(range(5)) * 4
    assert layout.targets.shape == (20, 3, 64, 64)
    for row, (source, prompt) in enumerate(
        zip(layout.edits.pair_sources, layout.edits.target_prompts, strict=True)
    ):
        edited = made[source][row // 5].scene
        assert torch.equal(layout.targets[row], rendered(edited))
        assert prompt == prompts[source][1][row // 5]
        assert prompt != layout.edits.source_prompts[source]
    assert layout.edits.ids[0] == f"{drawn[0].things[0].kind}-scene_{seeds[0]}"


def test_the_yaml_is_as_the_benchmarks(tmp_path):
    scene_edits.write_layout(
        SceneEditsSpec(count=2, kinds=("reshape",)), tmp_path / "mini"
    )
    (found,) = (tmp_path / "mini").glob("*.yaml")
    first, _ = yaml.safe_load(found.read_text())
    shape = scenes.sample_scene(1_100_000).things[0].kind
    assert first["init_img"] == f"/mini/{shape}/scene_1100000.png"
    assert first["target_imgs"] == [f"/mini/{shape}/scene_1100000_reshape.png"]
    # It may be renamed, as downloaded ones are.
    (tmp_path / "mini").rename(tmp_path / "renamed")
    assert len(edit_sets.read_layout(tmp_path / "renamed", 64).sources) == 2


def test_a_target_prompt_differs_from_its_source_prompt_whatever_the_edit(tmp_path):
    kinds = tuple(kind for kind in edits.EDITS if kind not in ("resize", "move"))
    spec = SceneEditsSpec(count=150, kinds=kinds, split="validation")
    sampled = SceneEditsSpec(
        **{**vars(spec), "sampled": True, "guidance": 3, "steps": 5}
    )
    scene_edits.write_layout(sampled, tmp_path / "set")
    found = edit_sets.read_layout(tmp_path / "set", 64).edits
    assert len(found.target_prompts) == 150 * len(kinds)
    for source, target in zip(found.pair_sources, found.target_prompts, strict=True):
        assert target != found.source_prompts[source]


def test_prompts_leave_places_and_sizes_to_the_source():
    words = {*scenes.SIZES, "left", "right", "top", "bottom", "middle", "above"}
    for seed in range(100):
        scene = scenes.sample_scene(seed)
        made = [edits.sample_edit(scene, seed, kind) for kind in edits.KEEP_LAYOUT]
        source, targets = edits.prompts(scene, made, seed)
        for text in (source, *targets):
            assert not words & set(text.split()), text


def test_an_edit_that_cannot_be_done_or_told_makes_no_set(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="resize cannot be done"):
        scene_edits.write_layout(
            SceneEditsSpec(count=50, kinds=("resize",)), tmp_path / "set"
        )
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(edits, "prompts", lambda *_: ("a scene", ("a scene",) * 4))
    with pytest.raises(ValueError, match="recolour does not change the prompt 'a sce"):
        scene_edits.write_layout(SceneEditsSpec(count=1), tmp_path / "set")
    assert not list(tmp_path.iterdir())


def test_a_fake_set_has_seeds_and_no_images(tmp_path):
    spec = SceneEditsSpec(count=3, sampled=True, guidance=7.5, steps=50)
    scene_edits.write_layout(spec, tmp_path / "set")
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["prompts.yaml"]
    layout = edit_sets.read_layout(tmp_path / "set", 64)
    assert layout.sources == tuple(
        edit_sets.Sampling(seed, 7.5, 50) for seed in scenes.split_seeds("test", 3)
    )
    assert len(set(layout.edits.source_prompts)) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 0}, "count 0 is less than 1"),
        ({"kinds": ()}, r"kinds \(\) are empty"),
        ({"kinds": ("move", "move")}, "or one is repeated"),
        ({"kinds": ("repaint",)}, "kind 'repaint' is not one of recolour, retexture"),
        ({"sampled": True}, "guidance 0.0 or steps 0 is less than 1"),
        ({"steps": 50}, "guidance and steps are for sources that are sampled"),
    ],
)
def test_settings_that_make_no_set_are_rejected(settings, message):
    with pytest.raises(ValueError, match=message):
        SceneEditsSpec(**{"count": 1, **settings})


# --- the steps -----------------------------------------------------------------------


def test_the_steps_prepare_a_real_set_without_a_model(tmp_path):
    folder, output = tmp_path / "set", tmp_path / "prepared" / "real.json"
    make_scene_edits.make_scene_edits(spec=SceneEditsSpec(count=2), output=folder)
    prepare(SPEC, folder, output)
    layout = edit_sets.read_layout(folder, 64)
    prepared = edit_sets.read_set(output)
    assert prepared == layout.edits
    sources, targets = edit_sets.read_images(
        output.with_suffix(".safetensors"), prepared
    )
    assert torch.equal(sources, torch.stack(layout.sources))
    assert torch.equal(targets, layout.targets)


def test_the_step_samples_sources_from_their_seeds(tmp_path):
    folder, output = tmp_path / "set", tmp_path / "prepared" / "mixed.json"
    scene_edits.write_layout(SceneEditsSpec(count=1), folder)
    (path,) = folder.glob("*.yaml")
    entries = yaml.safe_load(path.read_text())
    del entries[0]["target_imgs"]
    entries += [
        {
            "source_prompt": prompt,
            "target_prompts": ["a blue ring on the sand"],
            "seed": seed,
            "scale": scale,
            "ddim_steps": 3,
        }
        for prompt, seed, scale in (
            ("a large red star on the sand", 11, 4.0),
            ("a small blue ring on the sea", 12, 1),
            ("a large red star on the sand", 13, 4.0),
        )
    ]
    path.write_text(yaml.safe_dump(entries))
    with pytest.raises(ValueError) as failure:
        prepare(SPEC, folder, output)
    assert str(failure.value) == (
        "3 of 4 sources are sampled from seeds, and no --model is given"
    )
    assert not output.parent.exists()
    prepare(SPEC, folder, output, MODEL)
    prepared = edit_sets.read_set(output)
    sources, targets = edit_sets.read_images(
        output.with_suffix(".safetensors"), prepared
    )
    assert targets is None
    assert torch.equal(sources[0], edit_sets.read_layout(folder, 64).sources[0])
    # The same as each sampled alone, by the same scheduler, from the same noise.
    pipe = loading.load_pipeline(MODEL)
    for row, entry in enumerate(entries[1:], 1):
        latents = sample(
            pipe,
            encoding.encode_prompts(pipe, [entry["source_prompt"]]),
            generators([entry["seed"]]),
            SamplerSpec("ddim", 3, float(entry["scale"])),
        )
        alone = encoding.decode_latents(pipe, latents)[0]
        difference = (alone.int() - sources[row].int()).abs()
        assert int(difference.max()) <= 1
    _, notes = storage.read_tensors(output.with_suffix(".safetensors"))
    assert notes["model_sha256"] == storage.sha256_folder(MODEL)


def test_the_step_rejects_what_it_cannot_prepare(tmp_path):
    folder, output = tmp_path / "set", tmp_path / "prepared" / "set.json"

    def error(
        spec: dict[str, object], folder: Path | None = None, model: Path | None = None
    ) -> str:
        with pytest.raises(ValueError) as failure:
            prepare(json.dumps(spec), folder, output, model)
        assert not output.parent.exists()
        return str(failure.value)

    scene = {"source": "scenes", "size": 64}
    assert error(scene) == "a set of scenes needs the folder of make_scene_edits"
    fake = SceneEditsSpec(count=1, sampled=True, guidance=2, steps=2)
    scene_edits.write_layout(fake, folder)
    assert error({**scene, "size": 32}, folder, MODEL) == (
        f"{MODEL} samples 64×64 pixels, not 32×32"
    )
    user = {"source": "folder", "size": 64, "path": str(tmp_path / "gone")}
    assert error(user) == f"{tmp_path / 'gone'} is not a folder"
    assert error({**user, "colour": 1}).startswith(
        "unknown key 'colour' in spec; known are source, size, path, prompts"
    )


def test_what_figures_and_claims_ask_for_is_an_edit_of_this_world():
    asked = set()

    def look(entry):
        if isinstance(entry, dict):
            kinds = entry.get("kinds")
            asked.update(kinds if isinstance(kinds, list) else [])
            entry = [*entry.values()]
        for each in entry if isinstance(entry, list) else []:
            look(each)

    for path in (Path(__file__).parents[2] / "workflow/papers").glob("*.yaml"):
        look(yaml.safe_load(path.read_text("utf-8")))
    assert asked and asked <= set(edits.EDITS), asked - set(edits.EDITS)
