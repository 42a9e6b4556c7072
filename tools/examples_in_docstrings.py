"""For mkdocstrings: an example in a docstring (`>>> …`) becomes a block of code on the page.

Griffe takes only those for examples that stand under a heading of their own; others it would show as quotations.
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_EXAMPLE = re.compile(r"^>>> .*(?:\n(?!\s*$).*)*", re.MULTILINE)


def fenced(docstring: str) -> str:
    """The docstring with its examples in fences, and without doctest's directives."""
    plain = re.sub(r" *# doctest: \+\w+", "", docstring)
    return _EXAMPLE.sub(lambda found: f"```pycon\n{found[0]}\n```", plain)


class ExamplesInDocstrings(Extension):
    def on_object(self, *, obj: Object, **others: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)
