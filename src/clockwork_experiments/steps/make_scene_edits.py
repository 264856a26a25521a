"""Write an editing set of scenes, in the layout of ImageNet-R-TI2I."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from clockwork_experiments.config.parse import parse
from clockwork_experiments.mini import edits
from clockwork_experiments.run import new_parser, run


def main(args: Namespace) -> None:
    """Describe the scenes and their edits, and render them unless they are sampled."""
    edits.write_layout(parse(edits.SceneEditsSpec, args.spec), args.output)


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--spec", required=True, help="SceneEditsSpec as JSON")
    parser.add_argument("--output", required=True, type=Path, help="folder to write")
    run(parser, main)
