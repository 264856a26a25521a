"""Train the small restoration net that high-frequency synthesis starts from."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from clockwork_experiments.base import storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.run import new_parser, run


def main(args: Namespace) -> None:
    """Train, measure, save."""
    from clockwork_experiments.mini import card, restorer
    from clockwork_experiments.models import loading, mini

    spec = parse(restorer.RestorerSpec, args.spec)
    trained = restorer.train(spec, args.state, loading.default_device())
    model = trained.module.half().float()  # what the shipped fp16 file will hold
    assert isinstance(model, mini.Restorer)
    with storage.atomic_path(args.output) as partial:
        mini.save(model, partial)
        card.write_card(
            partial,
            "Mini restoration net",
            "Sharpens blurred scenes by squared error; high-frequency synthesis adds "
            "the detail that it leaves out.",
            f"{spec.images:,} renderings of the training split from number "
            f"{spec.offset:,} on, blurred",
            spec,
            trained,
            restorer.measure(model),
        )


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--spec", required=True, help="RestorerSpec as JSON")
    parser.add_argument("--state", required=True, type=Path, help="resumable state")
    parser.add_argument("--output", required=True, type=Path, help="folder to write")
    run(parser, main)
