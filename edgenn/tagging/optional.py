"""The doorway to what only `edgenn[tag]` and `edgenn[scale]` install: pyarrow, fsspec, watchfiles, Jinja, Ray.

Labels for local files as CSV or JSON Lines need none of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from edgenn_device.errors import EdgennError


def optional(module: str, extra: str, purpose: str) -> Any:
    """Import `module`, or say what to install.

    Raises:
      EdgennError: it is not installed, or does not load.
    """
    try:
        return import_module(module)
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError)
        state = "is not installed" if missing else f"does not load ({' '.join(str(error).split())[:200]})"
        what = (error.name if missing else None) or module
        raise EdgennError(f"{purpose} needs {what}, which {state}: pip install 'edgenn[{extra}]'") from None
