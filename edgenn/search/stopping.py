"""When a trial is given up while it trains: the median stopping rule, among networks that cost no more than it.

Golovin et al. 2017, "Google Vizier" (KDD), section 3.2.2, as Optuna's MedianPruner has it, with one difference: a
network is not held against larger ones, which learn faster and cost more; the fast end of the front would never be
trained to its end. Optuna cannot be told that, so it keeps the curves and the rule stands here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

# So many must have come as far, before one is given up for being worse than their median.
FEWEST = 4
# Before this share of its epochs a trial is not judged: warm-up, and what augments strongly begins slowly.
UNJUDGED = 0.3

Curve = Mapping[int, float]


def falls_behind(curve: Curve, others: Sequence[Curve], epochs: int) -> bool:
    """Whether a trial's best accuracy so far is below the median of what others had at its epoch.

    Args:
      curve: epoch (from 1) -> validation accuracy, up to now.
      others: those of earlier trials with as many epochs, whose networks cost no more.
      epochs: that it is to have.
    """
    now = max(curve, default=0)
    if now <= UNJUDGED * epochs or now >= epochs:
        return False
    reached = [best_until(other, now) for other in others if max(other, default=0) >= now]
    return len(reached) >= FEWEST and best_until(curve, now) < median(reached)


def best_until(curve: Curve, epoch: int) -> float:
    """The best accuracy up to and with an epoch."""
    return max(value for at, value in curve.items() if at <= epoch)
