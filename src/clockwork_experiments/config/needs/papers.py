"""What kinds of figures, tables and claims may ask of one scale's configuration."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from clockwork_experiments.config.needs import editing, translating
from clockwork_experiments.config.needs.entries import (
    SMALL,
    Config,
    chosen,
    entries,
    entry,
)
from clockwork_experiments.config.needs.files import shards

TRANSLATED = (
    *("translator", "steps", "guidance", "image_guidance"),
    *("level", "clock", "adaptor"),
)
"""Settings of a translation that decide its FLOPs, where it has them."""


class Known:
    """A scale, as `report.kinds.Known` describes it."""

    def __init__(self, config: Config, scale: str) -> None:
        """Keep the configuration and the scale."""
        self._config, self._scale = config, scale
        self.base = f"results/{scale}"

    @property
    def measured(self) -> bool:
        """Whether tables wait for what takes weights."""
        if self._scale == "paper":
            return bool(self._config["measured"])
        return self._scale in SMALL

    def entry(self, section: str, name: str) -> dict[str, Any]:
        """Return an entry, or say which there are."""
        found: dict[str, Any] = entry(self._config, self._scale, section, name)
        return found

    def entries(self, section: str) -> dict[str, Any]:
        """Return a section, ids to settings."""
        return entries(self._config, self._scale, section)

    def run(self, name: str) -> dict[str, Any]:
        """Return what decides a run's FLOPs; nothing for images that nothing made.

        Args:
            name: Id of a run or a translation, an edited run ``<edit>/<setting>``
                behind any set; a data set, its own images; a set of pairs, its inputs.
        """
        if editing.is_edited(name):
            if name.split("/")[-2] == editing.UNEDITED:
                return {}
            return editing.edit_run(self._config, self._scale, name)
        if name in self.entries("translations"):
            return chosen(self.entry("translations", name), *TRANSLATED)
        if name in (*self.entries("datasets"), *self.entries("translation_sets")):
            return {}
        run = self.entry("runs", name)
        told = {"model": run["model"], "adaptor": run.get("adaptor", "")}
        return {**told, "sampler": run["sampler"], **chosen(run, "level")}

    def searched(self, name: str) -> dict[str, Any]:
        """Return the same of what a search of time steps is about."""
        return chosen(self.entry("step_searches", name), *TRANSLATED)

    def scores(self, names: Iterable[str]) -> list[str]:
        """Return the score files of runs: sampled, then edited, then translations."""
        names = list(names)
        known = (*self.entries("translations"), *self.entries("translation_sets"))
        translated = [name for name in names if name in known]
        edited = [name for name in names if editing.is_edited(name)]
        sampled = [name for name in names if name not in (*translated, *edited)]
        return [
            *(f"{self.base}/scores/{name}.json" for name in sampled),
            *editing.edit_scores(self._scale, edited),
            *translating.translation_scores(self._scale, translated),
        ]

    def shards(self, kind: str, dataset: str, names: Iterable[str]) -> list[str]:
        """Return the ``images`` or ``features`` of runs on a data set."""
        return shards(self._config, kind, self._scale, dataset, *names)

    def translated(self, names: Iterable[str]) -> list[str]:
        """Return the images of translations."""
        return translating.translated_shards(self._config, self._scale, names)
