"""Judge a paper's claims from features, images, counts, timings and measures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.claims.registry import ClaimsSpec
from clockwork_experiments.report import pages
from clockwork_experiments.report.kinds import Given
from clockwork_experiments.run import run


def judge_claims(
    spec: ClaimsSpec,
    settings: dict[str, Any],
    inputs: dict[str, list[Path]],
    output: Path,
) -> None:
    """Gather the evidence, judge, and write JSON, Markdown and HTML.

    Args:
        spec: The claims.
        settings: What is to be known of runs, perturbations and translations.
        inputs: What the claims are judged by, by name.
        output: Path; the suffix is replaced.
    """
    from clockwork_experiments.claims import reading, text, verdicts

    evidence, encoders = reading.read_evidence(Given(inputs), settings)
    judged = verdicts.judge(spec, evidence)
    data = {
        **text.to_json(spec, judged),
        "encoders": encoders,
        "versions": provenance.versions("torch", "torchmetrics", "open_clip_torch"),
    }
    storage.write_json(output.with_suffix(".json"), data)
    markdown = text.to_markdown(spec, judged)
    storage.write_text(output.with_suffix(".md"), markdown)
    page = pages.to_page(markdown, spec.title)
    storage.write_text(output.with_suffix(".html"), page)


if __name__ == "__main__":
    run(judge_claims)
