"""Tell what a study can see of a paper's claims, by the spreads of a quick run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from clockwork_experiments.base import storage, texts
from clockwork_experiments.claims import power
from clockwork_experiments.claims.registry import ClaimsSpec
from clockwork_experiments.run import run


def plan_study(
    spec: ClaimsSpec, counts: dict[str, list[int]], claims: Path, output: Path
) -> None:
    """Write JSON, and Markdown beside it.

    Args:
        spec: The claims.
        counts: By claim, units of the quick run and of the study.
        claims: The quick run's verdicts.
        output: JSON to write.
    """
    pairs = {name: (quick, study) for name, (quick, study) in counts.items()}
    found = power.planned(spec, texts.read_json(claims), pairs)
    data = {name: asdict(each) for name, each in found.items()}
    storage.write_json(output, data)
    storage.write_text(output.with_suffix(".md"), power.to_markdown(spec, found))


if __name__ == "__main__":
    run(plan_study)
