"""What a leading ~ stands for. A shell replaces it, but not behind "jsonl:", and in a TOML file nobody else does."""

from __future__ import annotations

import os


def expanded(path: str | os.PathLike[str]) -> str:
    """`path` with a leading ~ or ~USER as that home folder; as it is where there is no such user."""
    try:
        return os.path.expanduser(os.fspath(path))  # noqa: PTH111 - pathlib raises where there is no such user
    except ValueError:  # a name that no user can have
        return os.fspath(path)
