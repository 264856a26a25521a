"""Pack results as a Workflow Run RO-Crate: one zip that says what made them.

The profile is https://w3id.org/ro/wfrun/workflow/0.5: beside the files lies
``ro-crate-metadata.json``, JSON-LD that names the workflow, the run, what it read and
what it made.
"""

from __future__ import annotations

import datetime
import json
import mimetypes
import platform
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clockwork_experiments.base import provenance, storage

METADATA = "ro-crate-metadata.json"
CONTEXT = (
    "https://w3id.org/ro/crate/1.1/context",
    "https://w3id.org/ro/terms/workflow-run/context",
)
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}
LICENSE = "https://spdx.org/licenses/Apache-2.0"
PAPERS = ("https://arxiv.org/abs/2312.08128", "https://arxiv.org/abs/2401.17547")
PACKAGES = ("snakemake", "torch", "diffusers", "transformers")
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time that a zip has of its members: equal content is equal bytes."""

Entity = dict[str, Any]


@dataclass(frozen=True)
class CrateSpec:
    """A run to pack.

    Attributes:
        scale: The scale that was run.
    """

    scale: str


def _reference(names: Iterable[str]) -> list[dict[str, str]]:
    return [{"@id": name} for name in names]


def _file(name: str, path: Path, **more: Any) -> Entity:
    kind, _ = mimetypes.guess_type(name)
    return {
        "@id": name,
        "@type": "File",
        "name": Path(name).name,
        "contentSize": path.stat().st_size,
        "sha256": storage.sha256(path),
        **({"encodingFormat": kind} if kind else {}),
        **more,
    }


def _tool(key: str, name: str, version: str) -> Entity:
    kind = "ComputerLanguage" if name == "snakemake" else "SoftwareApplication"
    return {"@id": key, "@type": kind, "name": name, "version": version}


def _time(seconds: float) -> str:
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.isoformat("T", "seconds")


def metadata(
    spec: CrateSpec,
    workflow: Path,
    sources: Sequence[Path],
    results: Sequence[Path],
    commit: str,
    versions: Mapping[str, str],
) -> dict[str, Any]:
    """Return the metadata of a crate, as JSON-LD.

    Args:
        spec: The run.
        workflow: The Snakefile.
        sources: The rest of the workflow, with its settings: what the run read.
        results: What it made.
        commit: The commit of the checkout.
        versions: Versions of packages by name.
    """
    title = f"Cheaper diffusion models, reproduced: {spec.scale} scale"
    times = [path.stat().st_mtime for path in results]
    names = [path.as_posix() for path in results]
    read = [path.as_posix() for path in sources]
    tools = {f"#{name}": (name, version) for name, version in versions.items()}
    tools["#python"] = ("python", platform.python_version())
    root: Entity = {
        "@id": "./",
        "@type": "Dataset",
        "name": title,
        "description": "Tables, figures, claims and scores of one run of the workflow.",
        "datePublished": _time(max(times)),
        "license": {"@id": LICENSE},
        "conformsTo": _reference(PROFILES),
        "hasPart": _reference([workflow.as_posix(), *read, *names]),
        "mainEntity": {"@id": workflow.as_posix()},
        "mentions": {"@id": "#run"},
        "citation": _reference(PAPERS),
    }
    main = _file(workflow.as_posix(), workflow)
    main |= {
        "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow"],
        "name": "The workflow",
        "version": commit,
        "programmingLanguage": {"@id": "#snakemake"},
    }
    run: Entity = {
        "@id": "#run",
        "@type": "CreateAction",
        "name": f"Run at {spec.scale} scale",
        "instrument": {"@id": workflow.as_posix()},
        "object": _reference(read),
        "result": _reference(names),
        # Of the results that are packed, the first and the last that was written.
        "startTime": _time(min(times)),
        "endTime": _time(max(times)),
        "actionStatus": {"@id": "http://schema.org/CompletedActionStatus"},
    }
    descriptor: Entity = {
        "@id": METADATA,
        "@type": "CreativeWork",
        "about": {"@id": "./"},
        "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
    }
    graph = [
        descriptor,
        root,
        main,
        run,
        *(_file(path.as_posix(), path) for path in (*sources, *results)),
        *(_tool(key, *told) for key, told in tools.items()),
        *(
            {"@id": key, "@type": "CreativeWork", "name": name}
            for key, name in PROFILES.items()
        ),
        *({"@id": key, "@type": "ScholarlyArticle"} for key in PAPERS),
        {"@id": LICENSE, "@type": "CreativeWork", "name": "Apache-2.0"},
    ]
    run["softwareRequirements"] = _reference(tools)
    return {"@context": list(CONTEXT), "@graph": graph}


def pack(
    spec: CrateSpec,
    workflow: Path,
    sources: Sequence[Path],
    results: Sequence[Path],
    output: Path,
) -> None:
    """Write a crate as one zip; equal content makes equal bytes.

    Args:
        spec: The run.
        workflow: The Snakefile.
        sources: The rest of the workflow.
        results: What it made.
        output: The zip.
    """
    versions = provenance.versions(*PACKAGES)
    told = metadata(spec, workflow, sources, results, provenance.commit(), versions)
    text = json.dumps(told, indent=1, ensure_ascii=False) + "\n"
    with (
        storage.atomic_path(output) as partial,
        zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as file,
    ):
        file.writestr(zipfile.ZipInfo(METADATA, EPOCH), text)
        for path in (workflow, *sources, *results):
            file.writestr(zipfile.ZipInfo(path.as_posix(), EPOCH), path.read_bytes())
