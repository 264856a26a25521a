"""Time the UNet passes of several runs of one model, in turns."""

from __future__ import annotations

import dataclasses
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

from clockwork_diffusion import provenance, storage
from clockwork_diffusion.specs import parse
from clockwork_diffusion.steps._run import new_parser, run


@dataclass(frozen=True)
class TimedRun:
    """A run to time.

    Attributes:
        sampler: A `clockwork_diffusion.sampling.SamplerSpec`, as plain data.
        adaptor: Folder of a learned adaptor; a key of
            `clockwork_diffusion.adaptors.KINDS`, with random weights if it has any; or
            empty.
        cut: Where the UNet is split.
        branch: Reuse features at this skip connection (DeepCache's branch) instead of
            using an adaptor.
    """

    sampler: dict[str, object]
    adaptor: str = ""
    cut: str = "stage1"
    branch: int | None = None

    def __post_init__(self) -> None:
        """Reject runs with two kinds of light pass."""
        if self.adaptor and self.branch is not None:
            raise ValueError("give either an adaptor or a branch, not both")


@dataclass(frozen=True)
class TimingSpec:
    """What to time, and how often.

    Attributes:
        runs: Runs by id.
        repeats: Timed runs of each.
        tokens: Length of a prompt.
        text_channels: Width of the pooled text embedding.
    """

    runs: dict[str, TimedRun]
    repeats: int
    tokens: int
    text_channels: int


def main(args: Namespace) -> None:
    """Load the model once, and let the runs take turns."""
    from clockwork_diffusion import adaptors, latency, loading, reuse, sampling
    from clockwork_diffusion.split import SplitUNet

    spec = parse(TimingSpec, args.spec)
    device = loading.default_device()
    pipe = loading.load_pipeline(args.model, device)
    loops = {}
    for name, timed in spec.runs.items():
        sampler = parse(sampling.SamplerSpec, timed.sampler, f"spec.runs.{name}")
        adaptor = None
        if timed.adaptor in adaptors.KINDS:
            adaptor = adaptors.build_adaptor(
                timed.adaptor, pipe.unet, timed.cut, spec.text_channels
            )
        elif timed.adaptor:
            adaptor = adaptors.load_adaptor(Path(timed.adaptor))
            adaptors.check_made_for(
                adaptor,
                Path(timed.adaptor),
                model=storage.sha256_folder(args.model),
                scheduler=sampler.scheduler,
                steps=sampler.steps,
                cut=timed.cut,
            )
        if adaptor is not None:
            adaptor = adaptor.to(device, pipe.unet.dtype).eval()
        passes: sampling.UNetPasses = sampling.Passes(
            SplitUNet(pipe.unet, timed.cut), adaptor
        )
        if timed.branch is not None:
            passes = reuse.BranchPasses(reuse.BranchUNet(pipe.unet, timed.branch))
        loops[name] = latency.unet_loop(
            passes, sampler, spec.tokens, spec.text_channels
        )
    timings = latency.time_in_turns(loops, spec.repeats)
    storage.write_json(
        args.output,
        {
            "unit": "milliseconds for the UNet passes of one image",
            "device": provenance.device_name(),
            "runs": {k: dataclasses.asdict(v) for k, v in timings.items()},
            "versions": provenance.versions("torch", "diffusers"),
        },
    )


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--spec", required=True, help="TimingSpec as JSON")
    parser.add_argument("--model", required=True, type=Path, help="pipeline folder")
    parser.add_argument("--output", required=True, type=Path, help="JSON to write")
    run(parser, main)
