"""`make bench`: reruns what BENCHMARKS.md says, one benchmark after the other, and compares with what it has recorded.

A benchmark is a command as it stands on that page, with what its placeholders mean, and its figures: each says in which
words the page records it, how it is read from the command's output, and how far off it may be. Recorded figures and
most targets are read from the page itself, so that they stand in one place. Nothing here measures anything.
"""
