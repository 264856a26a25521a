"""Set one table as CSV, Markdown and LaTeX."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

from clockwork_diffusion import storage, tables
from clockwork_diffusion.specs import parse
from clockwork_diffusion.steps._run import new_parser, run


def main(args: Namespace) -> None:
    """Gather results and write the three files."""
    spec = parse(tables.TableSpec, args.spec)
    scores = [storage.read_json(path) for path in args.scores]
    results = tables.Results(
        runs=json.loads(args.runs),
        scores={score["run"]: score for score in scores},
        flops={path.stem: storage.read_json(path) for path in args.flops},
        latency=storage.read_json(args.latency) if args.latency else {},
    )
    cells = tables.fill(spec, results)
    csv = tables.to_frame(spec, cells).to_csv(index=False)
    storage.write_text(args.output.with_suffix(".csv"), csv)
    markdown = tables.to_markdown(spec, cells)
    storage.write_text(args.output.with_suffix(".md"), markdown)
    latex = tables.to_latex(spec, cells, args.output.stem)
    storage.write_text(args.output.with_suffix(".tex"), latex)


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--spec", required=True, help="TableSpec as JSON")
    parser.add_argument("--runs", required=True, help="settings of the runs as JSON")
    parser.add_argument(
        "--scores", nargs="*", default=[], type=Path, help="scores of the runs"
    )
    parser.add_argument(
        "--flops", nargs="*", default=[], type=Path, help="counts, <model>.json"
    )
    parser.add_argument("--latency", type=Path, help="timings")
    parser.add_argument(
        "--output", required=True, type=Path, help="path; the suffix is replaced"
    )
    run(parser, main)
