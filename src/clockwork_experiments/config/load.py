"""Read the configuration: what a user edits, what scales add, and what is given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clockwork_experiments.base import texts
from clockwork_experiments.config.experiments import (
    ENTRIES,
    Settings,
    laid_over,
    scale_settings,
)
from clockwork_experiments.config.validate import check

SCALES = ("mini", "study", "paper", "pilot", "random")

WRITTEN = SCALES[:-1]
"""Those that have sections of their own; ``random`` is made of the paper scale's."""

SECTIONS = (
    *(name for name in ENTRIES if "." not in name),
    *("editing", "latency", "encoders", "training", "templates"),
)
"""What may stand once for all scales."""

SCHEMA = Path("workflow", "schemas", "config.schema.json")
"""What `config.yaml` may hold."""

MORE = {"mini": "recipes", "study": "recipes", "paper": "sources"}
"""Files of the sections of a scale that are not in `workflow/scales.yaml`."""

CONTROLS = ("sections", "at_most", "real_sizes", "weights", "everywhere")
"""Keys of `workflow/random.yaml` that are no sections of a scale."""


def read_config(given: Mapping[str, Any], root: Path) -> Settings:
    """Return the configuration, each scale with all of its sections.

    Args:
        given: What ``--config`` and ``--configfile`` lay over it.
        root: The folder of ``workflow/``. ``config.yaml`` is that of the folder in
            which Snakemake runs, or else the one in here.

    Raises:
        ValueError: If a file cannot be read, or an entry refers to another one that
            there is not, in one line that names the file or the entry.
    """
    path = Path("config.yaml")
    path = path if path.is_file() else root / path
    files = {
        name: _mapping(texts.read_yaml(root / "workflow" / f"{name}.yaml"), name)
        for name in ("scales", "recipes", "sources", "random")
    }
    config = laid_over(_mapping(texts.read_yaml(path), str(path)), dict(given))
    check(config, texts.read_json(root / SCHEMA), "config.yaml", lambda *_: {})
    shared = {key: config.pop(key) for key in SECTIONS if key in config}
    shared["defaults"] = files["scales"]["defaults"]
    for key, section in shared.items():
        _mapping(section, key)
    scales = files["scales"]
    for scale in WRITTEN:
        own = scales[scale]
        if "like" in own:
            own = laid_over(scales[own["like"]], own)
        own = laid_over(own, files[MORE[scale]] if scale in MORE else {})
        above = _mapping(config.get(scale) or {}, scale)
        config[scale] = scale_settings(scale, shared, own, above)
    config["random"] = laid_over(files["random"]["random"], config.get("random") or {})
    return config


def _mapping(value: Any, where: str) -> Settings:
    if not isinstance(value, dict):
        raise ValueError(f"{where} must be a mapping, not {texts.short(value)}")
    return value


def random_scale(random: Settings, paper: Settings) -> Settings:
    """Return the scale of random weights: the paper scale's, with small numbers.

    Args:
        random: What ``workflow/random.yaml`` says.
        paper: The sections of the paper scale.
    """
    kept = {key: paper[key] for key in random["sections"]}
    for section, settings in random.get("everywhere", {}).items():
        over = dict.fromkeys(kept[section], settings)
        kept[section] = laid_over(kept[section], over)
    differing = {key: value for key, value in random.items() if key not in CONTROLS}
    limited: Settings = _limited(laid_over(kept, differing), random["at_most"])
    return limited


def _limited(settings: Any, most: Mapping[str, int]) -> Any:
    """Return settings with no number under a key larger than its limit."""
    if isinstance(settings, list):
        return [_limited(item, most) for item in settings]
    if not isinstance(settings, dict):
        return settings
    return {
        key: _at_most(value, most[key]) if key in most else _limited(value, most)
        for key, value in settings.items()
    }


def _at_most(value: Any, limit: int) -> Any:
    """Return a number, or a list of them without repetition, up to a limit."""
    if isinstance(value, list):
        return sorted({min(each, limit) for each in value})
    # Some keys are elsewhere those of names.
    return value if isinstance(value, str) else min(value, limit)
