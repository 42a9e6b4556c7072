"""A recipe as the text of a TOML file that `edgenn train --recipe` reads: the standard library reads TOML only."""

from __future__ import annotations

import json
from typing import Any

from edgenn.training import Recipe


def to_toml(recipe: Recipe, heading: str = "") -> str:
    """Every setting that is not None.

    Args:
      heading: a comment for the first lines.
    """
    values = recipe.to_dict()
    tables = {name: value for name, value in values.items() if isinstance(value, dict)}
    lines = [f"# {line}".rstrip() for line in heading.splitlines()]
    lines += [f"{name} = {_value(value)}" for name, value in values.items() if name not in tables]
    for table, settings in tables.items():
        if settings:
            lines += ["", f"[{table}]", *(f"{name} = {_value(value)}" for name, value in settings.items())]
    return "".join(f"{line}\n" for line in lines)


def _value(value: Any) -> str:
    """Strings, numbers, booleans and lists of them are written as in JSON, but for DEL, which TOML wants escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
