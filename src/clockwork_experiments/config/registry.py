"""The resolved configuration and the papers' tables, figures and claims, to ask."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clockwork_experiments.base import texts
from clockwork_experiments.config.experiments import Settings, one_of
from clockwork_experiments.config.load import SCALES

BRIEF, PASTED = 8, 7
"""Columns of a table that a screen shows, and that a page takes."""


@dataclass(frozen=True)
class Registry:
    """What there is.

    Attributes:
        config: The resolved configuration; see `load.read_config`.
        papers: What each paper shows and claims, by the paper's name.
        others: Files of ``workflow/`` that say what no entry does, by their names.
    """

    config: Settings
    papers: Settings
    others: Settings = field(default_factory=dict)

    def entries(self, scale: str, section: str) -> Settings:
        """Return the entries of a section, such as ``runs`` or ``editing.edits``."""
        found: Any = self.config.get(scale) or {}
        for part in section.split("."):
            found = found.get(part) or {}
        return dict(found)

    def entry(self, scale: str, section: str, name: str) -> Settings:
        """Return one entry.

        Raises:
            ValueError: If it is not there; the message lists those that are.
        """
        known = self.entries(scale, section)
        if name not in known:
            part, _, inner = section.partition(".")
            called = f"{inner} of {part}" if inner else part
            raise ValueError(f"{scale}: {one_of(name, known, called)}")
        found: Settings = known[name]
        return found

    def items(self, scale: str, kind: str) -> Iterator[tuple[str, str, Settings]]:
        """Yield the tables or figures at a scale as paper, id and settings."""
        for paper, registry in self.papers.items():
            for name, item in registry[kind].items():
                if scale in item:
                    yield paper, name, item[scale]

    def claims(self, scale: str) -> Iterator[tuple[str, Settings]]:
        """Yield the papers that claim something at a scale, with what they claim."""
        for paper, registry in self.papers.items():
            if scale in registry.get("claims", {}):
                yield paper, registry["claims"][scale]


def read_papers(folder: Path) -> Settings:
    """Return what the files of a folder say, by the paper's name.

    Raises:
        ValueError: If a file cannot be read.
    """
    return {path.stem: texts.read_yaml(path) for path in sorted(folder.glob("*.yaml"))}


def with_scores(table: Settings, columns: Mapping[str, str]) -> Settings:
    """Return a table of paper scale, with the scores that it has at mini scale.

    Args:
        table: The table, by scale.
        columns: Where the values of each column come from.
    """
    own, other = table["paper"], table.get("mini", {"kind": "none"})
    if "kind" in own or "kind" in other:
        return own
    # Columns that there are not are refused later, by name.
    added = [
        name
        for name in other["columns"]
        if columns.get(name) == "scores" and name not in own["columns"]
    ]
    if not added:
        return own
    ours = " Scores that are not called published: ours; in brackets 95 %."
    views = {
        view: _view(own, other, view, added)[:most]
        for view, most in (("brief", BRIEF), ("pasted", PASTED))
    }
    return {
        **own,
        **views,
        "columns": own["columns"] + added,
        "caption": own["caption"] + ours,
    }


def _view(own: Settings, other: Settings, view: str, added: list[str]) -> list[str]:
    """Return what a view of a table shows with scores: printed, those, then ours."""
    shown: list[str] = own[view] if view in own else own["columns"]
    there: list[str] = other[view] if view in other else other["columns"]
    printed = [n for n in shown if n.endswith("_published") and n in there]
    ours = [n for n in shown if n != "label" and not n.endswith("_published")]
    return ["label", *printed, *(n for n in there if n in added), *ours]


def with_random_tables(
    papers: Settings, random: Settings, columns: Mapping[str, str]
) -> Settings:
    """Return the papers, their tables of runs with counterparts of random weights.

    The first table is that of ``real_sizes``, so that its runs are scored by one job.

    Args:
        papers: What each paper shows.
        random: What ``workflow/random.yaml`` says.
        columns: Where the values of each column come from.
    """
    papers = copy.deepcopy(papers)
    few = random["at_most"]["steps"]
    for registry in papers.values():
        for item in registry["tables"].values():
            if "rows" not in item.get("paper", {}) or "kind" in item["paper"]:
                continue
            table = with_scores(item, columns)
            item["random"] = {
                **table,
                "title": f"{table['title']}: random weights",
                "caption": "Random weights of the real sizes: no score; "
                f"{few} steps at most, whatever follows. {table['caption']}",
            }
    tables = papers["clockwork"]["tables"]
    table = tables.get("table_1", {}).get("random", {"rows": []})
    shown = random["real_sizes"]["runs"]
    rows = [row for row in table["rows"] if row.get("run") in shown]
    if rows:
        title = "Table 1 with random weights of the real sizes"
        small = {"random": {**table, "title": title, "rows": rows}}
        papers["clockwork"]["tables"] = {"real_sizes": small, **tables}
    return papers


def with_study(papers: Settings) -> Settings:
    """Return the papers; the study shows and claims what the mini scale does."""
    papers = copy.deepcopy(papers)
    for registry in papers.values():
        shown = [*registry["tables"].values(), *registry["figures"].values()]
        for item in (*shown, registry.get("claims", {})):
            if "mini" in item:
                item["study"] = item["mini"]
    return papers


IDS = {
    **{"model": "models", "dataset": "datasets", "trajectory": "trajectories"},
    **{"adaptor": "adaptors", "run": "runs", "judged": "quality"},
    **{"backbone": "backbones", "perturbation": "perturbations"},
    **{"translator": "translators", "search": "depth_searches"},
    **{"step_search": "step_searches", "benchmark_task": "benchmark_tasks"},
    **{"method": "benchmark", "finetuned": "finetuned", "source": "sources"},
    **{"coco": "coco", "edit_set": "edit_sets", "inversion": "editing.inversions"},
    **{"edit": "editing.edits", "setting": "editing.settings"},
}
"""Wildcards that are ids, and the sections that they are of."""


def constraints(known: Registry) -> dict[str, str]:
    """Return what each wildcard of the rules may be, as a regular expression."""
    return {
        **{wildcard: ids(known, section) for wildcard, section in IDS.items()},
        "images": ids(known, "runs", "datasets"),
        "scale": "|".join(SCALES),
        "shown": "methods|slice|plans|masks",
        "paper": "|".join(known.papers),
        "table": _shown(known, "tables"),
        "figure": _shown(known, "figures"),
        "shard": r"\d{3}",
    }


def ids(known: Registry, *sections: str) -> str:
    """Return the ids of sections at any scale, as a regular expression."""
    names = {
        name
        for scale in SCALES
        for section in sections
        for name in known.entries(scale, section)
    }
    return "|".join(sorted(names)) or "none"


def _shown(known: Registry, kind: str) -> str:
    return "|".join(sorted({n for each in known.papers.values() for n in each[kind]}))
