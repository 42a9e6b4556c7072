"""A day of a device in fast forward, and what its operator is told: faults by a schedule, and a judgement of each.

`python -m tools.operator_day` runs it; `__main__` says what is accelerated and what is not. It mends nothing: a fault
that nobody was told of, or that the device did not come back from, is a row of its table and an exit status of 1.
"""
