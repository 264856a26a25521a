"""Write an editing set of scenes, in the layout of ImageNet-R-TI2I."""

from __future__ import annotations

from pathlib import Path

from clockwork_experiments.run import run
from clockwork_experiments.world import edit_sets


def make_scene_edits(spec: edit_sets.SceneEditsSpec, output: Path) -> None:
    """Describe the scenes and their edits, and render them unless they are sampled.

    Args:
        spec: Which scenes, and which edits.
        output: Folder to write.
    """
    edit_sets.write_layout(spec, output)


if __name__ == "__main__":
    run(make_scene_edits)
