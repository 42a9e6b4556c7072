"""What edgenn weighs: sizes on disk, and what a start costs."""

from __future__ import annotations

from .benchmark import SIZE, TIME, Benchmark, Figure, Reader, Tolerance, printed

_SECTION = "Weight"
# Another release of a package is another size.
_INSTALL = Tolerance(share=0.05)
_MEMORY = Tolerance(share=0.1)


def _start(name: str, column: int) -> Reader:
    """Of a process's row: 1 is ms, 2 the first time, 3 resident MB."""
    return printed(rf"^\| `{name}` \|" + r" [\d.]+ \|" * (column - 1) + r" ([\d.]+) \|")


WEIGHT = (
    Benchmark(
        "weight",
        _SECTION,
        "python -m tools.measure_weight",
        2,
        (
            Figure("wheel", "The wheel has {} kB", printed(r"^The wheel: ([\d,]+) kB"), SIZE, unit="kB"),
            *(
                Figure(
                    f"base install, {where}",
                    "| all |" + "…|" * column + " {} (",
                    printed(r"^\| \*\*all\*\* \|" + r" [^|]+\|" * column + r" \*\*([\d,]+)\*\*"),
                    _INSTALL,
                    unit="MB",
                )
                for column, where in enumerate(
                    ("x86-64, Python 3.11", "x86-64, Python 3.13", "aarch64, Python 3.11", "aarch64, Python 3.13")
                )
            ),
            *(
                figure
                for name in ("import edgenn_device", "from edgenn_device import Classifier", "edgenn --help")
                for figure in (
                    Figure(f"{name}, time", f"| `{name}` | {{}} |", _start(name, 1), TIME, unit="ms"),
                    Figure(f"{name}, memory", f"| `{name}` |…|…| {{}} |", _start(name, 3), _MEMORY, unit="MB"),
                )
            ),
        ),
    ),
)
