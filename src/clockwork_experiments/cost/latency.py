"""Time UNet passes: whole sampling runs, and what the library's door adds to a pass.

As in the paper (Section 5.1): the UNet passes alone, at the batch that guidance needs,
without text encoder, scheduler and decoder; mean of ten runs after warm-up. Variants
take turns, so that a drift of the machine's speed touches all of them alike.
"""

from __future__ import annotations

import contextlib
import gc
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from torch.utils.benchmark import timer

from clockwork_diffusion.clock import steps_of_calls
from clockwork_diffusion.contract import inputs_of
from clockwork_diffusion.passes import Memory, UNetPasses
from clockwork_diffusion.pipeline import clockwork
from clockwork_diffusion.pooling import Pool
from clockwork_diffusion.unet import SplitUNet
from clockwork_experiments.generate.text import SamplerSpec

MODES: dict[str, str] = {
    "eager": "eager",
    "graph": "CUDA graph",
    "compile": "torch.compile",
}
"""Ways to run a loop of UNet passes, and what to call them."""


@dataclass(frozen=True)
class Timing:
    """Latency of one variant.

    Attributes:
        mean_ms: Mean over the runs in milliseconds.
        std_ms: Standard deviation over the runs in milliseconds.
        runs: Each run in milliseconds, in order; run *i* of all variants is a pair.
    """

    mean_ms: float
    std_ms: float
    runs: tuple[float, ...]


@dataclass(frozen=True)
class Inputs:
    """Random inputs of a UNet; time does not depend on their values.

    Attributes:
        x: Noisy latents, ``(N, C, h, w)``.
        c: Text features, ``(N, L, D)``.
        pooled: Pooled text embedding for the adaptor, ``(N, P)``.
    """

    x: torch.Tensor
    c: torch.Tensor
    pooled: torch.Tensor


def random_inputs(
    unet: UNet2DConditionModel, batch: int, tokens: int, text_channels: int
) -> Inputs:
    """Draw the same inputs for all that is timed, on the UNet's device."""
    generator = torch.Generator().manual_seed(0)
    size = unet.config.sample_size

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(unet.device, unet.dtype)

    return Inputs(
        draw(batch, unet.config.in_channels, size, size),
        draw(batch, tokens, unet.config.cross_attention_dim),
        draw(batch, text_channels),
    )


def unet_loop(
    passes: UNetPasses,
    spec: SamplerSpec,
    tokens: int,
    text_channels: int,
) -> Callable[[], torch.Tensor]:
    """Return a callable that runs one image's UNet passes, one after the other.

    Its inputs are always the same tensors, as a CUDA graph needs; it returns what the
    last pass predicts.

    Raises:
        ValueError: If the clock needs an adaptor, or one of another kind.
    """
    unet, clock = passes.unet, spec.phases
    passes.check(clock)
    given = random_inputs(unet, spec.branches, tokens, text_channels)
    owners = steps_of_calls(spec.scheduler, spec.steps)
    timesteps = torch.linspace(999, 0, len(owners), device=unet.device).round()

    @torch.inference_mode()
    def loop() -> torch.Tensor:
        memory = Memory()
        for index, timestep in zip(owners, timesteps, strict=True):
            step = memory.run(
                passes, clock, index, given.x, timestep, given.c, given.pooled
            )
        output: torch.Tensor = step.eps
        return output

    return loop


def time_in_turns(
    loops: Mapping[str, Callable[[], object]], runs: int = 10, warm_up: int = 2
) -> dict[str, Timing]:
    """Time callables in turns.

    Args:
        loops: What to time, by name.
        runs: Timed runs of each.
        warm_up: Untimed runs of each, first.
    """
    for loop in loops.values():
        for _ in range(warm_up):
            loop()
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(runs):
        for name, loop in loops.items():
            # The clock of torch.utils.benchmark, which waits for the GPU, if there is
            # one; its Timer would run everything twice before, untimed.
            began = timer()
            loop()
            seconds[name].append(timer() - began)
    timings = {}
    for name, values in seconds.items():
        in_ms = torch.tensor(values, dtype=torch.float64) * 1e3
        deviation = float(in_ms.std()) if runs > 1 else 0.0
        timings[name] = Timing(float(in_ms.mean()), deviation, tuple(in_ms.tolist()))
    return timings


# --- what our own code adds -----------------------------------------------------------


Pair = tuple[Callable[[], object], Callable[[], object]]
"""What may take longer, and what it is compared with."""


@dataclass(frozen=True)
class Overhead:
    """How much longer one callable takes than another that does the same work.

    Attributes:
        overhead: Median over the pairs of time / time of the bare callable, less 1.
        low: Lower end of its 95 % interval, a percentile bootstrap over pairs.
        high: Upper end.
        control: The same median of the bare callable against itself: what this
            machine's noise alone amounts to.
        bare_ms: Median time of the bare callable in milliseconds.
        pairs: Number of pairs.
    """

    overhead: float
    low: float
    high: float
    control: float
    bare_ms: float
    pairs: int


def bare_adaptor_step(
    unet: UNet2DConditionModel,
    adaptor: Callable[..., torch.Tensor],
    given: Inputs,
    t: torch.Tensor,
    r_out: torch.Tensor,
) -> torch.Tensor:
    """Call the modules of an adaptor step at stage 1, with nothing of ours around.

    Time embedding, conv_in, DOWN-0, φ, UP-2's upsampler, UP-3, output layers; each is
    diffusers' own module, called as its UNet calls it.
    """
    down, up = unet.down_blocks[0], unet.up_blocks[-1]
    # Blocks without attention take no text.
    texts = [
        {"encoder_hidden_states": given.c} if hasattr(block, "attentions") else {}
        for block in (down, up)
    ]
    t_emb = unet.time_embedding(
        unet.time_proj(t.expand(len(given.x))).to(given.x.dtype)
    )
    hidden = unet.conv_in(given.x)
    r_in, skips = down(hidden, t_emb, **texts[0])
    estimate = adaptor(r_in, r_out, t_emb, given.pooled)
    upsampled = unet.up_blocks[-2].upsamplers[0](estimate)
    # The last skip is r_in, which ε_L would consume.
    output = up(upsampled, (hidden, *skips[:-1]), t_emb, **texts[1])
    output = unet.conv_out(unet.conv_act(unet.conv_norm_out(output)))
    assert isinstance(output, torch.Tensor)
    return output


@contextlib.contextmanager
def through_the_door(
    unet: UNet2DConditionModel,
    adaptor: Any,
    given: Inputs,
    rounds: int,
    compiled: bool = False,
) -> Iterator[dict[str, Pair]]:
    """Put Clockwork on a UNet, and yield its steps beside their modules bare, by kind.

    The UNet is called as pipelines call it, in one run at clock 2, so that all that is
    ours is timed: which request a call belongs to, what is kept of it, what the summary
    notes. The kinds take turns, ``full`` first, as the clock has them.

    Args:
        unet: The UNet.
        adaptor: A learned adaptor, for stage 1.
        given: The inputs of every step.
        rounds: How often each kind can be called.
        compiled: Compile both sides, each as one graph.

    Yields:
        ``full``: a full step, and the UNet's own forward; ``adaptor``: ε_H and φ, and
        `bare_adaptor_step`.
    """
    scheduler = DPMSolverMultistepScheduler()
    # All the same, so that each step is like the other of its kind.
    scheduler.timesteps = torch.full((2 * rounds,), 500, device=unet.device)
    pipe = StableDiffusionPipeline(
        **{"vae": None, "text_encoder": None, "tokenizer": None, "unet": unet},
        **{"scheduler": scheduler, "safety_checker": None, "feature_extractor": None},
        requires_safety_checker=False,
    )
    x, c = given.x, given.c
    t, *_ = timesteps = [*scheduler.timesteps]
    left = iter(timesteps)
    with torch.inference_mode():
        r_out = SplitUNet(unet).full(x, t, c).r_out

    def ours() -> torch.Tensor:
        eps: torch.Tensor = unet(x, next(left), c, return_dict=False)[0]
        return eps

    def bare_full() -> torch.Tensor:
        eps: torch.Tensor = type(unet).forward(unet, x, t, c, return_dict=False)[0]
        return eps

    def bare_light() -> torch.Tensor:
        return bare_adaptor_step(unet, adaptor, given, t, r_out)

    bare: list[Callable[[], torch.Tensor]] = [bare_full, bare_light]
    if compiled:
        bare = [torch.compile(each, fullgraph=True) for each in bare]
    told = "text" in inputs_of(adaptor)
    pool: Pool | None = (lambda text: given.pooled) if told else None
    with clockwork(pipe, 2, adaptor=adaptor, compile=compiled, pool=pool):
        yield {"full": (ours, bare[0]), "adaptor": (ours, bare[1])}


def compare(
    ours: Callable[[], object],
    bare: Callable[[], object],
    pairs: int,
    seed: int = 0,
    warm_up: int = 3,
) -> Overhead:
    """Time two callables in pairs; see `compare_in_turns`."""
    return compare_in_turns({"": (ours, bare)}, pairs, seed, warm_up)[""]


@torch.inference_mode()
def compare_in_turns(
    kinds: Mapping[str, Pair], pairs: int, seed: int = 0, warm_up: int = 3
) -> dict[str, Overhead]:
    """Time pairs of callables in random order, and the second also against itself.

    Args:
        kinds: What may take longer, and what it is compared with; the kinds take turns.
        pairs: Number of pairs of each kind, 2 or more.
        seed: Chooses the orders, and the bootstrap's resamples.
        warm_up: Untimed rounds, first.

    Raises:
        ValueError: If there are fewer than 2 pairs.
    """
    if pairs < 2:
        raise ValueError(f"an overhead needs 2 pairs or more, not {pairs}")
    order = random.Random(seed)
    seconds = torch.zeros(len(kinds), warm_up + pairs, 3, dtype=torch.float64)
    enabled = gc.isenabled()
    try:
        for number in range(warm_up + pairs):
            if number == warm_up:
                gc.collect()
                gc.disable()
            for row, (ours, bare) in zip(
                seconds[:, number], kinds.values(), strict=True
            ):
                # The third is the control; it is a call like any other.
                calls = (ours, bare, bare)
                for index in order.sample(range(3), 3):
                    # Synchronises with the GPU, if there is one.
                    start = timer()
                    calls[index]()
                    row[index] = timer() - start
    finally:
        if enabled:
            gc.enable()
    return {
        name: _overhead(timed[warm_up:], seed)
        for name, timed in zip(kinds, seconds, strict=True)
    }


def _overhead(seconds: torch.Tensor, seed: int) -> Overhead:
    """Return the overhead of timed rounds, ``(pairs, 3)``: ours, bare, bare again."""
    ratios = seconds[:, [0, 2]] / seconds[:, 1:2] - 1
    low, high = _median_interval(ratios[:, 0], seed)
    overhead, control = ratios.quantile(0.5, dim=0).tolist()
    bare_ms = float(seconds[:, 1].quantile(0.5)) * 1e3
    return Overhead(overhead, low, high, control, bare_ms, len(seconds))


def _median_interval(
    values: torch.Tensor, seed: int, resamples: int = 2000
) -> tuple[float, float]:
    """Return the 95 % percentile-bootstrap interval of the median of ``(N,)``."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(len(values), (resamples, len(values)), generator=generator)
    medians = values[rows].quantile(0.5, dim=1)
    ends = torch.tensor([0.025, 0.975], dtype=values.dtype)
    low, high = medians.quantile(ends).tolist()
    return low, high


# --- ways to run a loop ---------------------------------------------------------------


def captured(
    loop: Callable[[], torch.Tensor], warm_up: int = 3
) -> Callable[[], torch.Tensor]:
    """Capture a loop over static inputs as one CUDA graph, and return its replay.

    Raises:
        ValueError: If there is no CUDA GPU.
    """
    if not torch.cuda.is_available():
        raise ValueError("a CUDA graph needs a CUDA GPU, and there is none here")
    # Libraries allocate and choose at their first calls, which must not be captured.
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(warm_up):
            loop()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = loop()

    def replay() -> torch.Tensor:
        graph.replay()
        return output

    return replay


def relative_difference(output: torch.Tensor, reference: torch.Tensor) -> float | None:
    """Return ‖output − reference‖ / ‖reference‖, or None where it is not finite."""
    wide, expected = output.detach().double(), reference.detach().double()
    value = (wide - expected).norm() / expected.norm()
    return float(value) if bool(value.isfinite()) else None


def gpu_slug(name: str | None = None) -> str:
    """Return a GPU's name as a path takes it; of this machine's, if left out.

    Raises:
        ValueError: If there is no CUDA GPU here.
    """
    if name is None:
        if not torch.cuda.is_available():
            raise ValueError("this needs a CUDA GPU, and there is none here")
        name = torch.cuda.get_device_name()
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; the first column is text, the others are numbers."""
    lines = [header, [":--"] + ["--:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def percent(value: float, digits: int = 1) -> str:
    """Return a share as a signed percentage, with a true minus sign."""
    return f"{100 * value:+.{digits}f} %".replace("-", "−")
