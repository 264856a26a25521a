"""Write scenes, and exact edits of them, as an editing set.

The folder is laid out as ImageNet-R-TI2I's are, so that both scales read the same way.
Prompts leave the layout to the source, like the "a <style> of an <instance>" of Table
S4: one that tells all of it needs no editing method to keep it. A *real* set holds
renderings, and the rendering of each edited scene as well: there the right answer is
known, which photographs do not offer. A *fake* set holds no images: its sources are
sampled from their prompts and seeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from clockwork_experiments.base import storage
from clockwork_experiments.world import edits, scenes
from clockwork_experiments.world.data import eight_bit

PROMPTS = "prompts.yaml"
"""Name of the list of sources."""


@dataclass(frozen=True)
class SceneEditsSpec:
    """Which scenes become an editing set, and which edits of them.

    Attributes:
        count: Number of sources.
        offset: First scene, counted within its split.
        split: Split of the scenes.
        kinds: Keys of `edits.EDITS`, one target prompt each. The default are those
            that keep the layout, as a text-guided edit should.
        sampled: Sample the sources instead of rendering them: a fake set.
        guidance: Guidance of that sampling.
        steps: Its number of DDIM steps.
    """

    count: int
    offset: int = 0
    split: str = "test"
    kinds: tuple[str, ...] = edits.KEEP_LAYOUT
    sampled: bool = False
    guidance: float = 0.0
    steps: int = 0

    def __post_init__(self) -> None:
        """Reject empty sets, unknown edits, and half a sampler."""
        if self.count < 1:
            raise ValueError(f"count {self.count} is less than 1")
        if not self.kinds or len(set(self.kinds)) < len(self.kinds):
            raise ValueError(f"kinds {self.kinds} are empty, or one is repeated")
        for kind in self.kinds:
            if kind not in edits.EDITS:
                raise ValueError(
                    f"kind {kind!r} is not one of {', '.join(edits.EDITS)}"
                )
        if self.sampled and (self.guidance < 1 or self.steps < 1):
            raise ValueError(
                f"guidance {self.guidance} or steps {self.steps} is less than 1"
            )
        if not self.sampled and (self.guidance or self.steps):
            raise ValueError("guidance and steps are for sources that are sampled")


def write_layout(spec: SceneEditsSpec, folder: Path) -> None:
    """Write the folder: the YAML, and for a real set the images.

    Raises:
        ValueError: If the split holds too few scenes, an edit cannot be done, or it
            cannot be told in words.
    """
    entries = []
    with storage.atomic_path(folder) as partial:
        partial.mkdir()
        for seed in scenes.split_seeds(spec.split, spec.count, spec.offset):
            scene = scenes.sample_scene(seed)
            made = [edits.sample_edit(scene, seed, kind) for kind in spec.kinds]
            entries.append(_entry(spec, seed, scene, made, folder.name))
            if spec.sampled:
                continue
            shown = {"": scene, **{edit.kind: edit.scene for edit in made}}
            for name, each in shown.items():
                _write_image(partial / _image_name(seed, scene, name), each)
        text = yaml.safe_dump(entries, sort_keys=False, width=1000)
        storage.write_text(partial / PROMPTS, text)


def _entry(
    spec: SceneEditsSpec,
    seed: int,
    scene: scenes.Scene,
    made: list[edits.Edit],
    root: str,
) -> dict[str, Any]:
    source, targets = edits.prompts(scene, made, seed)
    for edit, target in zip(made, targets, strict=True):
        if target == source:
            raise ValueError(
                f"scene {seed}: {edit.kind} does not change the prompt {source!r}"
            )
    prompts = {"source_prompt": source, "target_prompts": list(targets)}
    if spec.sampled:
        sampling = {"seed": seed, "scale": spec.guidance, "ddim_steps": spec.steps}
        return {**prompts, **sampling}
    images = [f"/{root}/{_image_name(seed, scene, edit.kind)}" for edit in made]
    return {
        "init_img": f"/{root}/{_image_name(seed, scene)}",
        **prompts,
        "target_imgs": images,
    }


def _image_name(seed: int, scene: scenes.Scene, kind: str = "") -> str:
    suffix = f"_{kind}" if kind else ""
    return f"{scene.things[0].kind}/scene_{seed}{suffix}.png"


def _write_image(path: Path, scene: scenes.Scene) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(eight_bit(scenes.render(scene))).save(path)
