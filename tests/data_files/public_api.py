"""What a program from outside does with edgenn's public API; checked by mypy --strict, never run."""

from __future__ import annotations

from pathlib import Path

import edgenn
from edgenn.training import Recipe
from edgenn_device import Card, Classification, Classifier, EdgennError, InputSpec


def road(photos: Path) -> float:
    run = edgenn.train(photos, "runs/first", recipe=Recipe(size=64), epochs=3)
    conversion = edgenn.convert(run, target="pi")
    found = edgenn.evaluate(conversion.model, photos)
    accuracy: float = found.accuracy
    for tagged in edgenn.tag(conversion.model, [photos]):
        label: str | None = tagged.label
        print(tagged.path, label)
    return accuracy


def look(model: Path, picture: bytes) -> tuple[str, float]:
    try:
        classifier = Classifier(model)
    except EdgennError as error:
        raise SystemExit(str(error)) from None
    card: Card | None = classifier.model.card
    spec: InputSpec = classifier.model.input
    found: Classification = classifier.classify(picture)
    print(card.name if card else "no card", spec.height)
    return found.label, found.confidence


# What mypy has to object to: were the public names Any, it would not.
edgenn.train(photos=1)  # type: ignore[call-arg, arg-type]
print(edgenn.convert("runs/first").accuracy)  # type: ignore[attr-defined]
Classifier("model.tflite").classify(1)  # type: ignore[arg-type]
