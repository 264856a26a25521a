"""Profile whole edits with DeepSpeed, and compare with what tables count; no weights.

Tables add up the FLOPs of edited runs from those of single calls. This step runs the
loops themselves, and fails where the two differ.
"""

from __future__ import annotations

from pathlib import Path

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.cost import edit_profiles
from clockwork_experiments.run import run


def profile_editing(
    spec: edit_profiles.ProfileSpec,
    flops: Path,
    output: Path,
    unet: Path | None = None,
) -> None:
    """Profile each run, and compare.

    Args:
        spec: What to profile, and how.
        flops: Counts of the model, ``<model>.json``.
        output: JSON to write.
        unet: Configuration of the UNet; SD v1.5's if left out.
    """
    from clockwork_experiments.cost import architectures

    model, counts = flops.stem, storage.read_json(flops)
    base = architectures.read_config(unet)
    network = architectures.build_unet(spec.backbone, base, spec.device)
    compared = {}
    for name, edit in spec.runs.items():
        if edit.model != model:
            raise ValueError(
                f"spec.runs.{name}: {flops} holds no counts of model {edit.model!r}"
            )
        compared[name] = edit_profiles.profile_edit(spec, name, network, counts)
    edit_profiles.check(compared)
    storage.write_json(
        output,
        {
            "backbone": spec.backbone,
            "unit": "FLOPs of one image and one target prompt",
            "runs": compared,
            "versions": provenance.versions("torch", "diffusers", "deepspeed"),
        },
    )


if __name__ == "__main__":
    run(profile_editing)
