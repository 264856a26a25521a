"""Judge a paper's claims from features, images, counts, timings and measures."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.data import pair_sets, shards
from clockwork_experiments.random import marks
from clockwork_experiments.report import pages
from clockwork_experiments.run import new_parser, run


def main(args: Namespace) -> None:
    """Gather the evidence, judge, and write both files."""
    import torch

    from clockwork_experiments.claims import evidence, registry, text, verdicts

    measured = (*args.perturbations, *args.searches, *args.step_searches)
    for path in (*args.features, *args.edits, *args.translations, *measured):
        if marks.is_random(path):
            raise ValueError(
                f"{path} is made with random weights, by which no claim is judged"
            )

    spec = parse(registry.ClaimsSpec, args.spec)
    files: dict[str, list[Path]] = {}
    for path in args.images:
        files.setdefault(path.parent.name, []).append(path)

    def images(name: str) -> Iterator[torch.Tensor]:
        return shards.Rows(files[name], "images").blocks(shards.IMAGES)

    features: dict[str, dict[str, torch.Tensor]] = {}
    encoders = set()
    for path in args.features:
        tensors, notes = storage.read_tensors(path)
        encoders.add(notes["encoders"])
        known = features.setdefault(path.parent.name, {})
        for name, tensor in tensors.items():
            known[name] = torch.cat([known[name], tensor]) if name in known else tensor
    if len(encoders) > 1:
        raise ValueError(f"features of {len(encoders)} sets of encoders do not compare")
    edits: dict[str, dict[str, torch.Tensor]] = {}
    edit_encoders = set()
    for path in args.edits:
        tensors, notes = storage.read_tensors(path)
        if "encoders" in notes:
            edit_encoders.add(notes["encoders"])
        sources = tensors.pop("source")
        for name, values in tensors.items():
            edit, _, score = name.rpartition("/")
            known = edits.setdefault(f"{path.parent.name}/{edit}/{path.stem}", {})
            known |= {score: values, "source": sources}
    if len(edit_encoders) > 1:
        raise ValueError(
            f"edits scored by {len(edit_encoders)} sets of encoders do not compare"
        )
    translations: dict[str, dict[str, torch.Tensor]] = {}
    translation_encoders = set()
    for path in args.translations:
        translations[path.stem], notes = storage.read_tensors(path)
        translation_encoders.add(notes.get("encoders", ""))
    if len(translation_encoders) > 1:
        raise ValueError(
            f"translations scored by {len(translation_encoders)} sets of encoders do "
            "not compare"
        )
    settings = json.loads(args.settings)
    sets = {path.stem: pair_sets.read_set(path).kinds for path in args.pairs}
    judged = verdicts.judge(
        spec,
        evidence.Evidence(
            runs=settings["runs"],
            features=features,
            images=images,
            flops={path.stem: storage.read_json(path) for path in args.flops},
            latency=storage.read_json(args.latency) if args.latency else {},
            perturbations={p.stem: storage.read_json(p) for p in args.perturbations},
            captions=settings["perturbations"],
            edits=edits,
            translations=translations,
            kinds={
                name: sets[chosen]
                for name, chosen in settings.get("translations", {}).items()
            },
            levels={path.stem: storage.read_json(path) for path in args.levels},
            level_latency={
                path.stem: storage.read_json(path) for path in args.level_latency
            },
            searches={path.stem: storage.read_json(path) for path in args.searches},
            step_searches={
                path.stem: storage.read_json(path) for path in args.step_searches
            },
        ),
    )
    data = {
        **text.to_json(spec, judged),
        "encoders": [
            json.loads(text)
            for text in (*encoders, *edit_encoders, *translation_encoders)
            if text
        ],
        "versions": provenance.versions("torch", "torchmetrics", "open_clip_torch"),
    }
    storage.write_json(args.output.with_suffix(".json"), data)
    markdown = text.to_markdown(spec, judged)
    storage.write_text(args.output.with_suffix(".md"), markdown)
    page = pages.to_page(markdown, spec.title)
    storage.write_text(args.output.with_suffix(".html"), page)


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--spec", required=True, help="ClaimsSpec as JSON")
    parser.add_argument(
        "--settings",
        required=True,
        help="settings of runs and perturbations, and sets of translations, as JSON",
    )
    for name, what in (
        ("--features", "feature shards, <run or data set>/<shard>"),
        ("--images", "image shards, <run>/<shard>"),
        ("--flops", "counts, <model>.json"),
        ("--perturbations", "measures, <perturbation>.json"),
        ("--edits", "scores per pair, <edit set>/<setting>.safetensors"),
        ("--translations", "scores per pair, <translation>.safetensors"),
        ("--pairs", "sets of pairs that were translated, <set>.json"),
        ("--levels", "counts of levels, <translator>.json"),
        ("--level_latency", "timings of levels, <translator>.json"),
        ("--searches", "searches of levels, <search>.json"),
        ("--step_searches", "searches of time steps, <search>.json"),
    ):
        parser.add_argument(name, nargs="*", default=[], type=Path, help=what)
    parser.add_argument("--latency", type=Path, help="timings")
    parser.add_argument(
        "--output", required=True, type=Path, help="path; the suffix is replaced"
    )
    run(parser, main)
