"""Sample what the benchmark's methods are compared with: many steps, nothing saved."""

from __future__ import annotations

from pathlib import Path

from clockwork_experiments.base import chunks, provenance, storage
from clockwork_experiments.benchmark import measure
from clockwork_experiments.benchmark.subject import TaskSpec, open_subject
from clockwork_experiments.models import encoders, loading
from clockwork_experiments.random.marks import notes
from clockwork_experiments.run import run


def sample_reference(
    spec: TaskSpec,
    model: Path,
    frechet: Path,
    frechet_kind: str,
    state: Path,
    output: Path,
    prompts: Path | None = None,
    set: Path | None = None,
) -> None:
    """Sample the teacher's images of many steps, and describe them.

    Args:
        spec: The task.
        model: The model's folder.
        frechet: The Fréchet distance's network.
        frechet_kind: Kind of that network.
        state: Resumable state.
        output: Tensors to write: images, and features.
        prompts: Prompts, for text-to-image.
        set: Prepared set of pairs, for other tasks.
    """
    opened = open_subject(spec, model, prompts=prompts, pairs=set)
    network = encoders.load_frechet(frechet_kind, frechet, loading.default_device())
    marks = [str(spec), storage.sha256_folder(model), network.sha256]
    marks += [storage.sha256(each) for each in (prompts, set) if each is not None]
    marks += [provenance.code_sha256("steps.sample_reference")]
    tensors = measure.sample_reference(
        opened.subject,
        spec.reference,
        spec.batch_size,
        network,
        state,
        "\n".join(marks),
    )
    storage.write_tensors(output, tensors, notes([model, frechet]))
    chunks.discard(state)


if __name__ == "__main__":
    run(sample_reference)
