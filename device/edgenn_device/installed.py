"""Which version of a distribution is installed here, at the price of looking into a few folders.

importlib.metadata tells the same, and brings fifty modules with it (e-mail, zip, temporary files), which a run that
starts on a small board can do without. It reads no metadata, only the names of their folders.
"""

from __future__ import annotations

import os
import re
import sys


def version(distribution: str) -> str | None:
    """The version, None where it is not installed.

    Source: "Recording installed projects" and "Binary distribution format" (packaging.python.org): a folder
    NAME-VERSION.dist-info, the name in lower case with "_" for runs of "-", "_" and "."; Debian's packages have
    NAME-VERSION.egg-info.

    >>> version("no-such-distribution") is None
    True
    """
    name = _normalized(distribution)
    for folder in sys.path:
        try:
            entries = os.listdir(folder or ".")  # noqa: PTH208
        except OSError:
            continue
        for entry in entries:
            if entry.endswith((".dist-info", ".egg-info")):
                found, _, rest = entry.rpartition(".")[0].partition("-")
                if rest and _normalized(found) == name:
                    # setuptools adds the Python it was built for: NAME-VERSION-py3.11.egg-info.
                    return rest.partition("-")[0]
    return None


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "_", name).lower()
