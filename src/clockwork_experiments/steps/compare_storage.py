"""Compare stored features with stored latents: bytes on disk, samples per second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.run import run
from clockwork_experiments.train import storing


def compare_storage(
    spec: storing.StorageSpec,
    output: Path,
    unet: Path | None = None,
    model: Path | None = None,
) -> None:
    """Count bytes from the architecture, and time a model if there is one.

    Args:
        spec: What to compare.
        output: JSON to write.
        unet: Configuration of the UNet; SD v1.5's if left out.
        model: Pipeline folder, to be timed.
    """
    from clockwork_experiments.cost import architectures
    from clockwork_experiments.train import trajectories

    base = architectures.read_config(unet)
    network = architectures.build_unet(spec.backbone, base)
    counted = trajectories.bytes_per_trajectory(
        network, spec.trajectory, spec.tokens, spec.text_channels
    )
    result: dict[str, Any] = {
        stored: {"bytes_per_trajectory": size} for stored, size in counted.items()
    }
    if model is not None:
        for stored, speed in storing.samples_per_second(spec, model).items():
            result[stored]["samples_per_s"] = speed
        result["batch_size"] = spec.batch_size
        result["device"] = provenance.device_name()
    result["versions"] = provenance.versions("torch", "diffusers")
    storage.write_json(output, result)


if __name__ == "__main__":
    run(compare_storage)
