"""What a model may cost: latency and size, read from text with units, and by how much a model misses them.

A number without a unit is refused: 20 may be milliseconds to one person and seconds to another.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from edgenn_device.errors import EdgennError

_TIMES = {"us": "1e-6", "ms": "1e-3", "s": "1", "min": "60", "h": "3600"}
# k and M are powers of 1000 (IEC 80000-13), as file managers and data sheets have them; Ki and Mi those of 1024.
_SIZES = {"B": "1", "kB": "1e3", "MB": "1e6", "KiB": "1024", "MiB": "1048576"}


@dataclass(frozen=True)
class Limits:
    """What a model may cost at most; None sets no limit.

    Attributes:
      latency: of `invoke`, median in seconds, on the machine that searches.
      size: of the whole .tflite, bytes.
    """

    latency: float | None = None
    size: int | None = None

    def excess(self, latency: float | None, size: float | None) -> dict[str, float]:
        """By how much a model misses each limit: the logarithm of value over limit, 0 or less where it is kept.

        A logarithm, so that twice too slow and twice too large are as bad as each other. What is not limited or not
        known is left out.
        """
        pairs = {"latency": (latency, self.latency), "size": (size, self.size)}
        return {
            name: math.log(max(value, 1e-12) / limit)
            for name, (value, limit) in pairs.items()
            if value is not None and limit is not None
        }

    def to_dict(self) -> dict[str, float | int | None]:
        return {"latency": self.latency, "size": self.size}

    def __str__(self) -> str:
        parts = [
            *([f"{milliseconds(self.latency)} ms"] if self.latency is not None else []),
            *([f"{kilobytes(self.size)} kB"] if self.size is not None else []),
        ]
        return " and ".join(parts) or "no limits"


def duration(text: str, what: str = "a duration") -> float:
    """Seconds of "20ms", "0.02s", "90min" or "2h".

    Raises:
      EdgennError: it is not a positive number with one of these units; the line names `what` it was for.
    """
    return float(_parsed(text, _TIMES, what, "20ms or 0.02s" if "latency" in what else "90min or 2h"))


def size(text: str, what: str = "a size") -> int:
    """Bytes of "1MB", "500kB" or "512KiB".

    Raises:
      EdgennError: it is not a positive number with one of these units.
    """
    return math.floor(_parsed(text, _SIZES, what, "1MB or 500kB", least=1))


def milliseconds(seconds: float) -> str:
    """Three significant digits: 0.412, 8.6, 152."""
    return f"{seconds * 1e3:.3g}" if seconds < 1 else f"{seconds * 1e3:,.0f}"


def kilobytes(count: float) -> str:
    return f"{count / 1e3:,.0f}" if count >= 1e4 else f"{count / 1e3:.3g}"


def _parsed(text: str, units: Mapping[str, str], what: str, example: str, least: int = 0) -> Decimal:
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]+)", text.strip())
    if found is None or found[2] not in units:
        raise EdgennError(f"{what} {text!r} is not possible: give a number with its unit, {example}")
    value = Decimal(found[1]) * Decimal(units[found[2]])  # decimal: 20ms and 0.02s are the same number
    if not 0 < value < 10**12 or value < least:
        raise EdgennError(f"{what} {text!r} is not possible: give more than nothing, {example}")
    return value
