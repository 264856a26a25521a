"""Train one of the mini models by its recipe."""

from __future__ import annotations

from pathlib import Path

from clockwork_experiments.run import run


def train_mini(
    recipe: str,
    spec: str,
    state: Path,
    output: Path,
    reads: dict[str, Path] | None = None,
) -> None:
    """Train one of the mini models, and save it with its model card.

    Args:
        recipe: Module with its `train`, such as
            ``clockwork_experiments.mini.recipes.clip``.
        spec: Its settings as JSON.
        state: Resumable state.
        output: Folder to write.
        reads: Folders of the models that it reads, by name.
    """
    from clockwork_experiments.mini import recipe as recipes

    recipes.train(recipe, spec, reads or {}, state, output)


if __name__ == "__main__":
    run(train_mini)
