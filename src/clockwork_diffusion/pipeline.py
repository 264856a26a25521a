"""Put Clockwork into any diffusers pipeline in one line, and take it out again.

    with clockwork(pipe, clock=2, adaptor=adaptor) as summary:
        image = pipe("a red ring on the sea").images[0]
    print(summary)

No module is replaced and no weight is touched; see `clockwork_diffusion.hook`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diffusers import UNet2DConditionModel

from clockwork_diffusion.adaptors import IdentityAdaptor
from clockwork_diffusion.clock import Clock
from clockwork_diffusion.contract import check_adaptor, cut_of, matched
from clockwork_diffusion.hook import Observer, Settings, put, take, unet_of
from clockwork_diffusion.passes import Passes
from clockwork_diffusion.pooling import Pool, pool_for
from clockwork_diffusion.scoped import scoped
from clockwork_diffusion.summary import Summary
from clockwork_diffusion.unet import SplitUNet, describe


@dataclass(frozen=True)
class _Clockwork:
    """Skip what lies below a cut, and let an adaptor stand for it."""

    adaptor: Any
    cut: str
    compiled: bool = False
    features: bool = False
    name: str = "Clockwork"

    def passes(self, unet: UNet2DConditionModel) -> Passes:
        """Return the passes of a UNet, the adaptor in its precision and place."""
        return Passes(
            SplitUNet(unet, self.cut),
            matched(self.adaptor, unet.dtype, unet.device),
            compiled=self.compiled,
            features=self.features,
        )


def apply_clockwork(
    pipe: Any,
    clock: int | Clock | None = None,
    *,
    adaptor: Any = None,
    cut: str = "stage1",
    pool: Pool | None = None,
    adaptor_steps: tuple[int, ...] = (),
    every_step: bool = False,
    mask: str = "",
    compile: bool = False,
    timed: bool = False,
    observe: Observer | None = None,
) -> Summary:
    """Make a pipeline's UNet skip its low-resolution part on some steps.

    Args:
        pipe: A diffusers pipeline with a ``unet``, or such a UNet. Whichever pipeline
            samples, its scheduler is looked up when a run begins.
        clock: Run the whole UNet once in so many steps, or a `Clock`; 2 if neither this
            nor another choice of steps is given.
        adaptor: φ; the identity if left out.
        cut: Where to split the UNet if the adaptor does not say.
        pool: Maps the UNet's text features, ``(N, L, D)``, to what an adaptor with text
            is told, ``(N, P)``, if its configuration does not say how.
        adaptor_steps: Steps that use the adaptor, counted from 1, instead of a clock.
        every_step: Use the adaptor at every step, instead of a clock.
        mask: A digit for each step, 1 where it is full and 0 where it is light, such
            as ``10010100``, instead of a clock.
        compile: Compile each of the two kinds of pass as one graph.
        timed: Time the passes, for the summary.
        observe: Called after each pass with the sampling step's index from 0, the time
            step, and what the pass yielded: a `clockwork_diffusion.unet.Step`.

    Returns:
        What the latest run has done, in a table where it is printed.

    Raises:
        ValueError: If a method is applied already, the clock cannot run, the UNet lacks
            the cut or is compiled or wrapped by something unknown, the adaptor needs
            text embeddings and gets none, or the scheduler does not say which of its
            calls begin a step.

    >>> import torch
    >>> from diffusers import StableDiffusionPipeline
    >>> mini = "resources/mini/stable-diffusion"
    >>> pipe = StableDiffusionPipeline.from_pretrained(mini, dtype=torch.float32)
    >>> summary = apply_clockwork(pipe, clock=2)
    >>> image = pipe("a red ring on the sea", num_inference_steps=4).images[0]
    >>> summary.full_steps, summary.light_steps
    ((1, 3), (2, 4))
    >>> remove_clockwork(pipe)
    """
    if not isinstance(clock, Clock):
        if clock is None:
            clock = 1 if adaptor_steps or every_step or mask != "" else 2
        clock = Clock(clock, tuple(adaptor_steps), every_step, mask)
    elif adaptor_steps or every_step or mask != "":
        raise ValueError("give either a Clock or its parts, not both")
    adaptor = IdentityAdaptor(cut=cut) if adaptor is None else adaptor
    check_adaptor(adaptor)
    if compile:
        _check_parts(unet_of(pipe))
    settings = Settings(
        _Clockwork(adaptor, cut_of(adaptor) or cut, compile, observe is not None),
        clock,
        pool=pool_for(adaptor, pipe, pool),
        observe=observe,
        always=compile or observe is not None,
        summary=Summary(f"Clockwork, {clock}", timed=timed),
    )
    try:
        return put(pipe, settings)
    except ValueError:
        settings.close()
        raise


def remove_clockwork(pipe: Any) -> None:
    """Take Clockwork off a pipeline's UNet; if it is not on, do nothing.

    >>> import torch
    >>> from diffusers import StableDiffusionPipeline
    >>> mini = "resources/mini/stable-diffusion"
    >>> pipe = StableDiffusionPipeline.from_pretrained(mini, dtype=torch.float32)
    >>> summary = apply_clockwork(pipe)
    >>> remove_clockwork(pipe)
    >>> remove_clockwork(pipe)
    """
    take(pipe, _Clockwork)


clockwork = scoped(
    "clockwork",
    apply_clockwork,
    remove_clockwork,
    """Apply Clockwork within a block; see `apply_clockwork` for the arguments.

    >>> import torch
    >>> from diffusers import StableDiffusionPipeline
    >>> mini = "resources/mini/stable-diffusion"
    >>> pipe = StableDiffusionPipeline.from_pretrained(mini, dtype=torch.float32)
    >>> with clockwork(pipe, adaptor_steps=(3, 4)) as summary:
    ...     image = pipe("a red ring on the sea", num_inference_steps=4).images[0]
    >>> print(str(summary).splitlines()[0])
    Clockwork, the adaptor at steps 3, 4, 4 steps
    """,
)


def _check_parts(unet: Any) -> None:
    """Refuse to compile a UNet of whose modules something hangs on the forward."""
    for name, module in unet.named_modules():
        if name and "forward" in vars(module):
            found = describe(vars(module)["forward"])
            raise ValueError(
                f"compile=True: {found} hangs on {name}, and would break the graph; "
                "take it off first"
            )
