"""The same by the names that the files beside this one use."""

from clockwork_experiments.config.needs import editing as _edits
from clockwork_experiments.config.needs import fetching as _fetching
from clockwork_experiments.config.needs import translating as _translations
from clockwork_experiments.config.needs.editing import UNEDITED, edit_scores, is_edited
from clockwork_experiments.config.needs.fetching import manifest
from clockwork_experiments.config.needs.translating import (
    level_timings,
    timesteps_of,
    translation_scores,
)


def editing(scale, section):
    """Return a section of a scale's editing, ids to settings."""
    return entries(scale, "editing").get(section, {})


def editing_entry(scale, section, name):
    """Return one of its entries, or say which there are."""
    known = editing(scale, section)
    if name not in known:
        listed = ", ".join(known) or "none"
        raise WorkflowError(
            f"{scale}: {name!r} is not one of the {section} of editing ({listed})"
        )
    return known[name]


def manifest_of(path):
    """Return the manifest that stands for a folder or file, as a list."""
    return _fetching.manifest_of(config, path)


def edits_at(scale, setting, edit_set):
    """Return the edits that are made of a set at a setting."""
    return _edits.edits_at(config, scale, setting, edit_set)


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
