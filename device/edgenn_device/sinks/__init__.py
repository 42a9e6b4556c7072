"""Where results go: one file per kind of output."""

from __future__ import annotations

from .base import Sink
from .jsonl import JsonLines
from .terminal import Terminal

__all__ = ["JsonLines", "Sink", "Terminal"]
