"""A catalogue of pictures gets its labels: from ten files to a hundred million, on every core, and resumable.

The road through this room: `listing` names the pictures, `engine` spreads them over processes that each hold a
`tagger`, `journal` keeps what is done, `output` puts it into its final form. Importing this loads nothing heavy.

>>> import edgenn
>>> for tagged in edgenn.tag("model.tflite", "photos"):                  # doctest: +SKIP
...     print(tagged.path, tagged.label, tagged.confidence)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .engine import tag
    from .records import Tagged

__all__ = ["Tagged", "tag"]

_HOMES = {"tag": "engine", "Tagged": "records"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
