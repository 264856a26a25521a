"""Load Stable Diffusion pipelines from folders; the same code at either scale."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin, StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from clockwork_experiments.base import storage
from clockwork_experiments.models import inspection, overlay

UNREAD = ("safety_checker", "feature_extractor", "image_encoder")
"""Parts of a pipeline that nothing here uses, and that are not loaded."""


def load_pipeline(
    folder: Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    kind: type[Any] = StableDiffusionPipeline,
) -> Any:
    """Load a pipeline folder as diffusers saves it, or what lies over one.

    Args:
        folder: Folder with ``model_index.json``, or of a model in the hub's cache; what
            its weights lie over (`models.overlay`), if they do, is beside it.
        device: Where to put it.
        dtype: Precision to compute in; the files may be stored in another.
        kind: Stable Diffusion's pipeline, or one that is made like it.

    Raises:
        ValueError: If the folder is not a pipeline of this kind, one of its networks is
            not as its configuration says, or they do not fit; the message names it.
    """
    folder = inspection.place_of(folder)
    index = storage.read_json(folder / "model_index.json")
    if index.get("_class_name") != kind.__name__:
        raise ValueError(
            f"{folder} is a {index.get('_class_name')}, not a {kind.__name__}"
        )
    inspection.inspect(folder)
    # Steps draw their own bars; loading takes a second and needs none.
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    storage.check_weights(folder)
    kinds = {
        name: _class(library, part)
        for name, (library, part) in inspection.parts_of(folder).items()
        if library and name not in UNREAD
    }
    inspection.check_tokenizer(folder / "tokenizer")
    networks = {
        name: load_network(part, folder / name, dtype)
        for name, part in kinds.items()
        if issubclass(part, torch.nn.Module)
    }
    # Images are not checked. The extractor serves that alone, and published folders may
    # name a class that transformers no longer has.
    unchecked = {
        "safety_checker": None,
        "requires_safety_checker": False,
        "feature_extractor": None,
        "image_encoder": None,
    }
    known = inspect.signature(kind).parameters
    try:
        pipe = kind.from_pretrained(
            folder,
            dtype=dtype,
            local_files_only=True,
            **networks,
            **{name: value for name, value in unchecked.items() if name in known},
        ).to(device)
    except Exception as error:  # diffusers raises many kinds for what is missing
        raise ValueError(
            f"{folder} cannot be loaded: {inspection.one_line(error)}"
        ) from error
    _check_fit(pipe, folder)
    pipe.set_progress_bar_config(disable=True)
    pipe.unet.requires_grad_(False)
    return pipe


def _class(library: str, name: str) -> type[Any]:
    found = getattr(importlib.import_module(library), name, None)
    if not isinstance(found, type):
        raise ValueError(f"{library} has no class {name!r}")
    return found


def load_network(
    kind: type[Any],
    folder: Path,
    dtype: torch.dtype = torch.float32,
    *,
    options: Mapping[str, Any] | None = None,
    surplus: Collection[str] = (),
    pickled: bool = False,
) -> Any:
    """Load one network of diffusers' or transformers', strictly: nothing is filled in.

    Args:
        kind: Its class.
        folder: Holds ``config.json`` and the weights, in any precision.
        dtype: Precision to compute in.
        options: What else ``from_pretrained`` of the class takes.
        surplus: How tensors may begin that are left over.
        pickled: The weights are a file of PyTorch's.

    Returns:
        The network, on the CPU, in evaluation mode.

    Raises:
        ValueError: In one line, if a file is missing or damaged, a tensor is missing,
            left over, of another shape, or not finite, or something would be run.
    """
    inspection.inspect(folder)
    inspection.check_config(folder)
    if overlay.is_over(folder.parent):
        return _load_over(kind, folder).to(dtype).eval()
    if pickled:
        chosen: dict[str, Any] = {"weights_only": True}
    else:
        chosen = {"variant": inspection.variant_of(folder)}
        inspection.check_kinds(folder)
    weights = inspection.weights_in(folder)
    precision = "torch_dtype" if issubclass(kind, ModelMixin) else "dtype"
    # Damaged files raise many kinds, from the depths of three libraries.
    try:
        network, report = kind.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=not pickled,
            output_loading_info=True,
            **{precision: dtype},
            **chosen,
            **(options or {}),
        )
    except Exception as error:
        raise ValueError(
            f"{weights} is corrupt, truncated or not as config.json says: "
            f"{inspection.one_line(error)}"
        ) from error
    inspection.check_report(report, weights, surplus)
    inspection.check_finite(network, weights)
    return network.eval()


def _load_over(kind: type[Any], folder: Path) -> Any:
    """Load a network of a pipeline that lies over another."""
    weights = folder.parent / overlay.WEIGHTS
    tensors = overlay.tensors_of(folder.parent, folder.name)
    # What the network is made with is replaced, and must not change what is drawn next.
    with torch.random.fork_rng(devices=[]):
        if issubclass(kind, ModelMixin):
            network = kind.from_config(kind.load_config(folder))
        else:
            config = kind.config_class.from_pretrained(folder, local_files_only=True)
            network = kind(config)
    found = network.load_state_dict(tensors, strict=False)
    report = {
        "missing_keys": found.missing_keys,
        "unexpected_keys": found.unexpected_keys,
    }
    inspection.check_report(report, weights)
    inspection.check_finite(network, weights)
    return network


def _check_fit(pipe: Any, folder: Path) -> None:
    """Refuse parts of a pipeline that fail together in the middle of a run.

    Raises:
        ValueError: In one line.
    """
    unet, text, tokenizer = pipe.unet, pipe.text_encoder.config, pipe.tokenizer
    side = inspection.side_of(unet.config, folder / "unet" / "config.json")
    unet.register_to_config(sample_size=side)
    highest = max(tokenizer.get_vocab().values())
    if highest >= text.vocab_size:
        raise ValueError(
            f"{folder}: the tokenizer has ids up to {highest}, and the text encoder "
            f"embeds {text.vocab_size}"
        )
    if tokenizer.model_max_length > text.max_position_embeddings:
        raise ValueError(
            f"{folder}: the tokenizer's model_max_length is "
            f"{tokenizer.model_max_length}, and the text encoder has "
            f"{text.max_position_embeddings} positions"
        )
    widths = unet.config.cross_attention_dim
    if {text.hidden_size} != set(widths if isinstance(widths, list) else [widths]):
        raise ValueError(
            f"{folder}: the text encoder's hidden_size is {text.hidden_size}, and the "
            f"UNet's cross_attention_dim {widths}"
        )


def default_device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
