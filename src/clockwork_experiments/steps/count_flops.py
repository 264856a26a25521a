"""Count a model's FLOPs and parameters, whole and with each adaptor; no weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.cost import unet_counts
from clockwork_experiments.run import run


def count_flops(
    spec: unet_counts.FlopsSpec,
    output: Path,
    unet: Path | None = None,
) -> None:
    """Count on the meta device.

    Args:
        spec: What to count.
        output: JSON to write.
        unet: Configuration of the UNet; SD v1.5's if left out.
    """
    import torch

    from clockwork_diffusion import adaptors, contract
    from clockwork_diffusion.unet import CUTS
    from clockwork_experiments.cost import architectures, flops

    base = architectures.read_config(unet)
    network = architectures.build_unet(spec.backbone, base)
    counted: dict[str, dict[str, object]] = {}
    result = {
        "backbone": spec.backbone,
        "unit": "one UNet call at batch 1",
        "full": flops.count_full(network, spec.tokens).to_json(),
        "blocks": {
            name: count.to_json()
            for name, count in flops.count_blocks(network, spec.tokens).items()
        },
        "levels": {
            str(level): flops.count_level(network, spec.tokens, level).to_json()
            for level in spec.levels
        },
        "adaptors": counted,
        "versions": provenance.versions("torch", "diffusers", "deepspeed"),
    }
    for name, chosen in spec.adaptors.items():
        if chosen.kind == "branch":
            count = flops.count_branch(network, spec.tokens, chosen.branch)
            counted[name] = {"parameters": 0, "step": count.to_json()}
            continue
        with torch.device("meta"):
            more: dict[str, Any] = {"rank": chosen.rank} if chosen.rank else {}
            adaptor = adaptors.build_adaptor(
                chosen.kind,
                network,
                chosen.cut,
                spec.text_channels,
                inputs=chosen.inputs or contract.INPUTS,
                **more,
            )
        counts = flops.count_light(network, spec.tokens, adaptor, spec.text_channels)
        counted[name] = {
            "parameters": sum(p.numel() for p in adaptor.parameters()),
            **{step: count.to_json() for step, count in counts.items()},
        }
        if hasattr(adaptor, "layout"):
            size = network.config.sample_size >> CUTS[chosen.cut]
            counted[name]["layout"] = adaptor.layout(size)
    storage.write_json(output, result)


if __name__ == "__main__":
    run(count_flops)
