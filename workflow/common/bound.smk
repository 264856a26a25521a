"""The same by the names that the files beside this one use."""

from clockwork_experiments.config.needs import editing as _edits
from clockwork_experiments.config.needs import translating as _translations
from clockwork_experiments.config.needs.editing import UNEDITED, edit_scores, is_edited
from clockwork_experiments.config.needs.fetching import manifest
from clockwork_experiments.config.needs.translating import (
    level_timings,
    translation_scores,
)


def edit_run(scale, name):
    """Return the settings of an edited run, ``<edit>/<setting>`` behind any set."""
    return _edits.edit_run(config, scale, name)


def translated_shards(scale, names):
    """Return the images of translations."""
    return _translations.translated_shards(config, scale, names)


def depth_searches(scale):
    """Return the results of every search of levels at a scale."""
    return _translations.depth_searches(config, scale)


def step_searches(scale):
    """Return the results of every such search at a scale."""
    return _translations.step_searches(config, scale)
