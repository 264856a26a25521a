"""Write captions with images, pairs for a task, or edits, as a user's folder."""

from __future__ import annotations

from pathlib import Path

from clockwork_experiments.mini import folders
from clockwork_experiments.run import run


def make_random_data(spec: folders.RandomDataSpec, output: Path) -> None:
    """Render scenes that stand in for what users bring, and write them.

    Args:
        spec: What to write.
        output: Folder to write.
    """
    folders.write(spec, output)


if __name__ == "__main__":
    run(make_random_data)
