"""The doorway to what only `edgenn[train]` installs: TensorFlow, Keras, matplotlib and Jinja.

Every module that needs one of them asks here, at the moment it is needed, so that a missing extra is one line that
says what to type, and so that what those libraries print while they load never reaches a person's screen. Nothing that
the base install brings passes through here.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from edgenn_device.errors import EdgennError


def require(module: str) -> Any:
    """Import `module` ("tensorflow", "keras", "matplotlib.figure", "jinja2") and return it.

    Raises:
      EdgennError: it is not installed, or its installation does not load.
    """
    loaded = sys.modules.get(module)
    if loaded is not None:
        return loaded
    root = module.partition(".")[0]
    # 3 leaves only fatal messages; setdefault, because whoever sets it wants to see more.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    if root in ("tensorflow", "keras"):
        # TensorFlow's remarks on how it was called (a batch of another size was traced again) are not for its user.
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
    if root == "matplotlib":
        logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # "building the font cache; this may …"
    try:
        with quiet_stderr(root in ("tensorflow", "keras")):
            return import_module(module)
    except ModuleNotFoundError as error:
        # Keras is installed without a backend when only TensorFlow is missing.
        missing = (error.name or root).partition(".")[0]
        if missing not in (root, "tensorflow"):
            raise EdgennError(_broken(root, error)) from None
        raise EdgennError(_missing(missing)) from None
    except ImportError as error:
        raise EdgennError(_broken(root, error)) from None


def check_installed(module: str) -> None:
    """Refuse what will need `module` where that is not installed, without the seconds that importing it takes.

    Raises:
      EdgennError: it is not installed.
    """
    try:
        missing = module not in sys.modules and find_spec(module) is None
    except ModuleNotFoundError:  # a finder that refuses it
        missing = True
    if missing:
        raise EdgennError(_missing(module))


def _missing(module: str) -> str:
    return f"{module} is missing; this needs the training extra: pip install 'edgenn[train]'"


def _broken(root: str, error: ImportError) -> str:
    reason = " ".join(str(error).split())
    return f"{root} is installed but does not load ({reason[:200]}): pip install --force-reinstall 'edgenn[train]'"


@contextmanager
def quiet_stderr(wanted: bool) -> Iterator[None]:
    """Send file descriptor 2 nowhere for the length of the block.

    TensorFlow's C++ half greets from static initialisers, before any log level is read. EDGENN_DEBUG=1 lets it speak:
    a processor that it cannot run on is reported in no other way.
    """
    if not wanted or os.environ.get("EDGENN_DEBUG"):
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
