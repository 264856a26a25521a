"""The step that sets tables, called as its command line would call it."""

from argparse import Namespace
from typing import Any

from clockwork_experiments.steps import set_table as step


def set_table(**given: Any) -> None:
    """Set a table; options that are not given are as if left out."""
    default = {
        "kind": "results",
        "runs": "{}",
        "scores": [],
        **dict.fromkeys(step.BY_ID, []),
        **dict.fromkeys(step.SINGLE),
    }
    step.main(Namespace(**{**default, **given}))
