"""Make a folder that can be uploaded to a hub: a shipped model with its card."""

from __future__ import annotations

from pathlib import Path

from clockwork_experiments.report import hub
from clockwork_experiments.run import run


def make_hub_folder(spec: hub.HubSpec, card: Path, output: Path) -> None:
    """Copy a model, with a card for the hub.

    Args:
        spec: What the model's folder cannot say of itself.
        card: The card that training wrote, in that folder.
        output: Folder to make.
    """
    hub.make_folder(card.parent, spec, Path.cwd(), output)


if __name__ == "__main__":
    run(make_hub_folder)
