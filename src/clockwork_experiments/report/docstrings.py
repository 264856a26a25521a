"""Show the site's API page what our docstrings mean.

mkdocstrings reads code and runs none. So what `clockwork_diffusion.scoped` makes, a
function that is assigned, it would show as a variable without a word; and examples that
stand in no section as a quotation.
"""

from __future__ import annotations

import ast
import inspect
import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^>>> .*?(?=^$|\Z)", re.M | re.S)


class Docstrings(griffe.Extension):  # type: ignore[misc]
    """Find docstrings that are told to a call, and fence their examples."""

    def on_instance(self, *, node: Any, obj: Any, **others: Any) -> None:
        """Give an object the docstring that it has when the code runs."""
        value = getattr(node, "value", None)
        if isinstance(value, ast.Call) and ast.unparse(value.func) == "scoped":
            text = inspect.cleandoc(ast.literal_eval(value.args[-1]))
            obj.docstring = griffe.Docstring(text, parent=obj, parser="google")
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(text: str) -> str:
    """Return a docstring with its examples as blocks of code."""
    return EXAMPLE.sub(lambda found: f"```pycon\n{found[0].strip()}\n```\n", text)
