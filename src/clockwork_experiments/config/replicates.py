"""Runs once more, with adaptors that are trained from other seeds.

A scale's section ``replicates`` names runs and seeds. Each of these runs is there
again for each seed, as ``<run>_seed<seed>``, with an adaptor
``<adaptor>_seed<seed>``; how far they are apart is part of what claims know of the run.
"""

from __future__ import annotations

import copy
from typing import Any

Settings = dict[str, Any]


def add_replicates(found: Settings, scale: str) -> None:
    """Add runs and adaptors to a scale's sections, in place.

    What is no list of runs and of seeds is left to the types of the configuration.

    Raises:
        ValueError: If a run cannot be there again, or what it would be called is there
            and something else.
    """
    wanted = found.get("replicates")
    if not isinstance(wanted, dict):
        return
    names, seeds = wanted.get("runs"), wanted.get("seeds")
    if not isinstance(names, list) or not isinstance(seeds, list):
        return
    runs, adaptors = found.get("runs") or {}, found.get("adaptors") or {}
    for name in names:
        # Whether there is such a run, the type of the section says.
        run = runs.get(name)
        if not isinstance(run, dict):
            continue
        adaptor = adaptors.get(run.get("adaptor"))
        if not isinstance(adaptor, dict) or "optimisation" not in adaptor:
            raise ValueError(
                f"{scale}.replicates: run {name!r} has no adaptor that is trained"
            )
        for seed in seeds:
            if adaptor["optimisation"].get("seed", 0) == seed:
                raise ValueError(
                    f"{scale}.replicates: {seed} is the seed of {name!r} itself"
                )
            again = f"{run['adaptor']}_seed{seed}"
            trained = copy.deepcopy(adaptor)
            trained["optimisation"]["seed"] = seed
            _put(adaptors, again, trained, f"{scale}.adaptors")
            own = {**copy.deepcopy(run), "adaptor": again, "replicate_of": name}
            _put(runs, f"{name}_seed{seed}", own, f"{scale}.runs")


def _put(entries: Settings, name: str, entry: Settings, where: str) -> None:
    if entries.setdefault(name, entry) != entry:
        raise ValueError(f"{where}.{name} is there, and no replicate")
