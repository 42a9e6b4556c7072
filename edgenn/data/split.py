"""Which pictures are set aside for validation when no folders say so: decided by content, not by a throw of dice.

A picture's place depends on its own bytes, so that adding photos moves none of those already there, a renamed file
stays where it was, and identical files never stand on both sides. There is no seed: a split that changes between runs
lets validation pictures leak into training.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

# One picture in five: with some hundred pictures a class it measures accuracy to about a percent and leaves most of
# them to learn from.
VALIDATION_SHARE = 0.2


def validation_contents(classes: Iterable[Collection[str]]) -> frozenset[str]:
    """The contents that are set aside for validation; all others are for training.

    A content is set aside if its sha256, read as a fraction of 2^256, is below `VALIDATION_SHARE`. Where that leaves a
    class without validation, its content with the smallest digest stands in; where it leaves none for training, the
    content with the largest digest is taken back. These stand-ins are the only pictures that can move when photos are
    added to their class: the first gives way to a smaller digest, the second to a larger one. (A picture that is
    copied into another class can become that one's stand-in.) A class of 20 pictures has a stand-in with a probability
    of 0.8^20 = 1 percent.

    Args:
      classes: for every class the hex sha256 of its contents, at least one (a single one stays for training). A
        content may stand in several classes; it is then on the same side in all of them, and a small class made only
        of such contents can be left with one side empty.
    """
    groups = [set(contents) for contents in classes]
    chosen = {content for group in groups for content in group if _fraction(content) < VALIDATION_SHARE}
    for group in groups:
        if group.isdisjoint(chosen):
            chosen.add(min(group))
    for group in groups:
        if group <= chosen:
            chosen.discard(max(group))
    return frozenset(chosen)


def _fraction(sha256: str) -> float:
    return int(sha256, 16) / 2**256
