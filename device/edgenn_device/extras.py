"""The doorway to what only `edgenn[device]` installs: the libraries behind sinks, web page and recording.

Every module of the device that needs one of them asks here, at the moment it is needed, so that the base install stays
small and a missing library is one line that says what to type. Nothing that the base install brings passes through.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from .errors import EdgennError


def require(module: str) -> Any:
    """Import `module` ("paho.mqtt.client", "starlette.applications", "prometheus_client") and return it.

    Raises:
      EdgennError: it is not installed, or its installation does not load.

    >>> mqtt = require("paho.mqtt.client")                              # doctest: +SKIP
    """
    loaded = sys.modules.get(module)
    if loaded is not None:
        return loaded
    root = module.partition(".")[0]
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or root).partition(".")[0] != root:
            raise EdgennError(_broken(root, error)) from None
        raise EdgennError(f"{root} is missing; this needs the device extra: pip install 'edgenn[device]'") from None
    except ImportError as error:
        raise EdgennError(_broken(root, error)) from None


def _broken(root: str, error: ImportError) -> str:
    reason = " ".join(str(error).split())
    return f"{root} is installed but does not load ({reason[:200]}): pip install --force-reinstall 'edgenn[device]'"
