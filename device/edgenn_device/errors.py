"""The two ways in which a request ends without its result. Neither is a defect: each carries one line for a person."""

from __future__ import annotations


class EdgennError(Exception):
    """The request or its input is wrong (exit status 2).

    The message is one line that says what is wrong and how to mend it.
    """


class AnswerIsNo(Exception):
    """The work was done and its answer is no (exit status 1): a gate failed, a device is unhealthy."""
