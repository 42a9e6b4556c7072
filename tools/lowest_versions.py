"""The lowest version series of what `pip install 'edgenn[EXTRA,…]'` may bring, as constraints for pip.

    python tools/lowest_versions.py device > lowest.txt && pip install -c lowest.txt -e '.[device]'

Read from pyproject.toml, so that its lower bounds are what `make test-lowest` tries. Requirements whose marker does not
hold here are left out.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

from packaging.requirements import Requirement

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def lowest(project: dict[str, object], extras: Sequence[str]) -> Iterator[str]:
    """`name==SERIES.*` for each requirement `name>=SERIES`.

    Raises:
      SystemExit: a requirement has no lower bound: nobody can say what it was tried with.
    """
    bounds: dict[str, str] = {}
    optional = project["optional-dependencies"]
    for text in [*project["dependencies"], *(line for extra in extras for line in optional[extra])]:  # type: ignore
        asked = Requirement(text)
        if asked.marker is not None and not asked.marker.evaluate():
            continue
        least = [bound.version for bound in asked.specifier if bound.operator == ">="]
        if not least:
            raise SystemExit(f"{text}: give it a lower bound (>=)")
        bounds[asked.name] = least[0]
    yield from (f"{name}=={version}.*" for name, version in bounds.items())


def main() -> None:
    project = tomllib.loads(PROJECT.read_text())["project"]
    print("\n".join(lowest(project, sys.argv[1:])))


if __name__ == "__main__":
    main()
