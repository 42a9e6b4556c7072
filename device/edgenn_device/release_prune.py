"""Old releases make room: the current one and the last that worked always stay.

What no release that stays needs (environments, wheels) goes with them. It never touches the current release, whatever
its state, and removes links and marks before what they stand for, so that an interruption leaves nothing that looks
complete and is not.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .releases import Releases

# Releases that stay, the current one among them: enough to go back twice. A model is a few megabytes; environments of
# 300 MB are shared.
KEEP = 3


def prune(releases: Releases) -> list[str]:
    """Remove all but the newest `KEEP` releases, the current one and the last that worked before it.

    Returns:
      The ids of those removed.
    """
    places, ids = releases.places, releases.ids()
    staying = {releases.current, releases.before(releases.current), *ids[-KEEP:]}
    removed = [id for id in ids if id not in staying]
    for id in removed:
        # Hidden first: `ids` does not know it from then on, and `recover` removes what is left.
        hidden = places.releases / f".{id}"
        (places.releases / id).replace(hidden)
        shutil.rmtree(hidden, ignore_errors=True)
    used = [releases.about(id) for id in releases.ids()]
    environments = {str(one.get("environment")) for one in used}
    wheels: set[str] = set()
    for entry in _entries(places.environments):
        if entry in environments:
            wheels.update(_lines(places.environments / entry / "wheels.txt"))
        else:
            (places.environments / entry / "complete").unlink(missing_ok=True)
            shutil.rmtree(places.environments / entry, ignore_errors=True)
    for entry in _entries(places.wheels):
        if entry not in wheels:
            shutil.rmtree(places.wheels / entry, ignore_errors=True)
    return removed


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _entries(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
