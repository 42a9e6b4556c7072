"""What of a frame is looked at, and whether it is worth the network's while: the source's view, and the motion gate.

For the preprocess stage, whose thread it belongs to. It prepares no tensor: it only decides which picture becomes one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .cameras.base import Frame, Image
from .cameras.view import View

if TYPE_CHECKING:
    # Not at run time: without a gate nothing here needs OpenCV.
    from .card import InputSpec
    from .motion import Gate


class Sight:
    """For one thread.

    Args:
      gate: None takes every frame for a change.
    """

    def __init__(self, gate: Gate | None) -> None:
        self._gate = gate
        # The picture that was cut out last.
        self._seen: Image | None = None

    def of(self, frame: Frame, view: View, spec: InputSpec) -> tuple[Frame, Image, bool]:
        """The frame as it is seen, the picture for the classifier, and whether the scene is still the last one.

        An encoded picture is decoded once for gate and network; while the scene is still, only as large as the gate
        needs it.

        Raises:
          EdgennError: it cannot be decoded.
        """
        gate, moment = self._gate, moment_of(frame)
        if gate is not None and gate.rests(moment):
            if not view.is_whole and self._seen is not None:
                frame = replace(frame, image=self._seen)
            return frame, frame.image, True
        cover = (spec.height, spec.width)
        if not view.is_whole:
            self._seen = view.apply(frame.image, cover)
            frame = replace(frame, image=self._seen)
        image = frame.image
        if gate is None:
            return frame, image, False
        if not isinstance(image, bytes):
            return frame, image, gate.still(image, moment)
        from . import preprocess

        rested = gate.resting
        pixels = preprocess.decode(image, gate.cover if rested else cover)
        still = gate.still(pixels, moment)
        return frame, image if rested else pixels, still

    def forget(self) -> None:
        """What was seen last was not classified, or by another model: the next frame is a change."""
        if self._gate is not None:
            self._gate.forget()


def moment_of(frame: Frame) -> float:
    """Seconds: a frame's moment in its scene."""
    return frame.time if frame.moment is None else frame.moment
