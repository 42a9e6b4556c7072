"""Passwords and tokens: from the environment or from a file that it names, never from the command line.

What stands on a command line is in the process list and the shell's history. Logs nothing, and its errors name the
variable, not what it holds.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import EdgennError
from ..home import expanded


def secret(name: str) -> str | None:
    """The secret in the environment variable `name`, or in the file that the variable `name`_FILE names.

    Returns:
      None when neither variable is set. White space around it is no part of it.

    Raises:
      EdgennError: the file cannot be read, or what was given is empty or more than one line.
    """
    value = os.environ.get(name)
    if value is None:
        path = os.environ.get(f"{name}_FILE")
        if path is None:
            return None
        try:
            value = Path(expanded(path)).read_text()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "no text"
            raise EdgennError(f"{name}_FILE: {path} cannot be read ({reason})") from None
    value = value.strip()
    if not value or not value.isprintable():
        raise EdgennError(f"{name} is empty or more than one line: put the secret there, and nothing else")
    return value
