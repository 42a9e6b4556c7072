"""What is to be converted, wherever it comes from: a run, or somebody else's .keras, .h5 or SavedModel with photos.

`opened` gives both as one value, `Original`: a Keras network that takes pixels 0 to 255, with its labels, its input and
the photos to calibrate with and to judge by. What a foreign file leaves unsaid is measured on the photos and reported
in `notes`; what cannot be found out is refused. Nothing is converted here.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgenn import data
from edgenn.data.folders import find
from edgenn.evaluation.model import load_keras
from edgenn.evaluation.predict import probabilities
from edgenn.extras import require
from edgenn.training.recipe import Recipe
from edgenn.training.run import MODEL, SETTINGS, Run
from edgenn_device import model_file
from edgenn_device.card import Colour, InputSpec
from edgenn_device.errors import EdgennError
from edgenn_device.picture_header import read_header

from . import beginning, loading, pixel_range

FILES = (".keras", *loading.HDF5)
# Largest side that a network of no fixed size is given when all photos have one size.
LARGEST_SIDE = 512


@dataclass(frozen=True)
class Original:
    """A network to convert, and what conversion needs to know of it.

    Attributes:
      name: for the card.
      out: where its int8 file goes when nobody says.
      path: a .keras of `model`, to be handed to the converter's process.
      model: the keras.Model; takes pixels 0 to 255, float32 (n, height, width, channels), and gives (n, classes).
      labels: in the order of its outputs.
      input: how a photo becomes its input, uint8.
      dataset: labelled photos, "train" to calibrate with and "validation" to judge by.
      recipe: settings for training it on; its `input` is not used.
      parameters: number of its weights.
      training: what the card says of how it came to be.
      simulated: its int8 is simulated already (`fake_quant.rewrite.quantization_aware`): it is converted as it is.
      partial: the photos show some of its classes only.
      notes: what was found out or assumed, one sentence each.
    """

    name: str
    out: Path
    path: Path
    model: Any = field(repr=False)
    labels: tuple[str, ...]
    input: InputSpec
    dataset: data.Dataset = field(repr=False)
    recipe: Recipe
    parameters: int
    training: dict[str, Any]
    simulated: bool = False
    partial: bool = False
    notes: tuple[str, ...] = ()


@contextmanager
def opened(
    given: str | os.PathLike[str] | Run,
    photos: str | os.PathLike[str] | None = None,
    labels: str | os.PathLike[str] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[Original]:
    """Open what is to be converted.

    Args:
      given: a run or its folder; or a .keras, an .h5 or the folder of a SavedModel.
      photos: labelled photos; a run knows its own, if they were not moved.
      labels: for a foreign model: a file with one label a line, in the order of its outputs; without it they are the
        class folders of the photos, sorted.
      say: is told each step.

    Raises:
      EdgennError: it is none of these, cannot be loaded safely, or does not fit the photos.
    """
    path = Path(given.path) if isinstance(given, Run) else Path(given)
    if isinstance(given, Run) or not _is_foreign(path):
        if labels is not None:
            raise EdgennError("a run knows its labels: leave out --labels")
        run = given if isinstance(given, Run) else Run.load(path)
        say("reading photos")
        yield _of_run(run, photos)
        return
    if photos is None:
        raise EdgennError(f"{path} needs labelled photos to calibrate with and to be judged by: give --photos PHOTOS")
    with tempfile.TemporaryDirectory(prefix="edgenn-convert-") as folder:
        yield _Foreign(path, Path(photos), labels, say).original(Path(folder) / "model.keras")


def _is_foreign(path: Path) -> bool:
    if path.is_dir():
        return (path / "saved_model.pb").is_file()
    of_a_run = path.name == MODEL and (path.parent / SETTINGS).is_file()
    return path.suffix in FILES and path.is_file() and not of_a_run


def _of_run(run: Run, photos: str | os.PathLike[str] | None) -> Original:
    place = Path(photos) if photos is not None else run.photos
    if not place.is_dir():
        raise EdgennError(f"the photos of this run are no longer at {place}: give their place with --photos")
    return Original(
        name=run.path.resolve().name,
        out=run.path / "model.tflite",
        path=run.model,
        model=load_keras(run.model),
        labels=run.labels,
        input=run.recipe.input,
        dataset=data.scan(place, run.labels),
        recipe=run.recipe,
        parameters=run.parameters,
        training={
            "network": run.network,
            "network_options": run.recipe.network_options,
            "parameters": run.parameters,
            "fingerprint": run.fingerprint,
            "trained_on": run.trained_on,
            "seed": run.recipe.seed,
            "epochs": run.epochs,
            "versions": run.versions,
        },
    )


@dataclass(frozen=True)
class _Foreign:
    path: Path
    photos: Path
    labels: str | os.PathLike[str] | None
    say: Callable[[str], None]

    def original(self, keras_file: Path) -> Original:
        """Load it, find out what it wants, and keep it as `keras_file` in the form in which it is converted."""
        self.say(f"loading {self.path}")
        network, parameters = self._network()
        simulated = any(type(layer).__name__ == "FakeQuant" for layer in getattr(network, "layers", ()))
        self.say("reading photos")
        dataset = self._dataset(self._classes(network))
        height, width, channels = self._size(network, dataset)
        spec = InputSpec(height, width, channels, "grey" if channels == 1 else "rgb")
        keras = require("keras")
        shape = (height, width, channels)
        notes = [f"Photos are stretched to {height}x{width}.", _which_photos(dataset)]
        if simulated:
            model = beginning.with_bytes(network, beginning.form_of_simulated(network), shape)
        else:
            head, inner = beginning.without_beginning(network, shape)
            sample = self._sample(dataset, spec)
            forms, rarer = ((head,), ()) if head else (pixel_range.USUAL, pixel_range.RARER)
            self.say(f"finding out what pixels it wants, on {len(sample.labels)} photos")
            choice = pixel_range.choose(inner.predict_on_batch, sample.tensors, sample.labels, forms, rarer)
            known = "it scales them itself" if head else f"{choice.form.name}, by which it recognises most photos"
            notes.append(f"Pixels: {known} (accuracy {choice.figures}).")
            colour: Colour = "grey" if channels == 1 else choice.form.colour
            spec = replace(spec, colour=colour)
            model = beginning.with_bytes(inner, choice.form, shape)
            scores = model.predict_on_batch(sample.tensors[:32].astype(np.float32))
            if not np.array_equal(probabilities(scores), scores):
                model = keras.Model(model.inputs, keras.layers.Softmax(name="edgenn_probabilities")(model.outputs[0]))
                notes.append("It gives logits: a softmax was put behind it.")
        model.save(keras_file)
        seen = {picture.label for pictures in dataset.splits.values() for picture in pictures}
        return Original(
            name=self.path.resolve().stem,
            out=self.path.parent / f"{self.path.resolve().stem}.tflite",
            path=keras_file,
            model=model,
            labels=dataset.labels,
            input=spec,
            dataset=dataset,
            recipe=Recipe(size=height).resolved(),
            parameters=parameters,
            training={"file": self.path.name, "parameters": parameters},
            simulated=simulated,
            partial=len(seen) < len(dataset.labels),
            notes=tuple(notes),
        )

    def _network(self) -> tuple[Any, int]:
        """The network as it is in the file, and how many weights it has."""
        if self.path.is_dir():
            from . import saved_model

            layer = saved_model.network(self.path)
            keras = require("keras")
            pictures = keras.Input(layer.input_shape_wanted[1:])
            return keras.Model(pictures, layer(pictures)), layer.parameters
        model = loading.load(self.path)
        if not model.built:
            raise EdgennError(f"{self.path} has no input yet: begin it with keras.Input, and save it again")
        return model, int(model.count_params())

    def _classes(self, network: Any) -> int:
        shapes = [tuple(tensor.shape) for tensor in network.outputs] if getattr(network, "outputs", None) else []
        if len(shapes) != 1 or len(shapes[0]) != 2 or (shapes[0][1] or 0) < 2:
            raise EdgennError(f"{self.path} gives {shapes or 'nothing known'}: a classifier gives (batch, 2 or more)")
        return int(shapes[0][1])

    def _dataset(self, classes: int) -> data.Dataset:
        if self.labels is None:
            dataset = data.scan(self.photos)
            if len(dataset.labels) != classes:
                raise EdgennError(
                    f"{self.path} has {classes} outputs and {self.photos} {len(dataset.labels)} class folders: give "
                    "--labels FILE with one label for each output in order, of which the folders are some"
                )
            return dataset
        names = model_file.read_labels(self.labels, classes)
        if len(set(names)) < len(names):
            raise EdgennError(f"{self.labels} has a repeated label: give each output one of its own")
        folders = set(find(self.photos, (), least_classes=1).labels)
        if unknown := sorted(folders - set(names)):
            raise EdgennError(
                f"the class folder {unknown[0]!r} of {self.photos} is no label of {self.labels}: rename it"
            )
        dataset = data.scan(self.photos, [name for name in names if name in folders])
        place = [names.index(label) for label in dataset.labels]
        splits = {
            split: tuple(data.Picture(picture.path, place[picture.label], picture.sha256) for picture in pictures)
            for split, pictures in dataset.splits.items()
        }
        return replace(dataset, labels=names, splits=splits)

    def _size(self, network: Any, dataset: data.Dataset) -> tuple[int, int, int]:
        shape = tuple(network.inputs[0].shape) if len(network.inputs) == 1 else ()
        if len(shape) != 4 or shape[3] not in (1, 3, None):
            raise EdgennError(f"{self.path} takes {shape or 'several inputs'}: a picture is (batch, height, width, 3)")
        channels = shape[3] or 3
        if None not in shape[1:3]:
            return shape[1], shape[2], channels
        sizes = {_size_of(picture.path) for picture in dataset.splits["validation"]}
        height, width = next(iter(sizes)) if len(sizes) == 1 else (0, 0)
        if not 0 < max(height, width) <= LARGEST_SIDE:
            raise EdgennError(
                f"{self.path} takes pictures of any size, and the photos do not tell which: save it with a fixed one, "
                "as by keras.Input((224, 224, 3))"
            )
        return height, width, channels

    def _sample(self, dataset: data.Dataset, spec: InputSpec) -> data.Loaded:
        photos = dataset.splits["validation"]
        if len(photos) < pixel_range.PICTURES:
            photos = (*photos, *dataset.splits["train"])
        return data.load(data.calibration(photos, pixel_range.PICTURES), spec)


def _which_photos(dataset: data.Dataset) -> str:
    judged, calibrated = len(dataset.splits["validation"]), len(dataset.splits["train"])
    if dataset.split_rule == "folders":
        return f"Judged by the {judged} photos of the validation folder, calibrated on the {calibrated} of train."
    return (
        f"Judged by {judged} of the photos, chosen by content, and calibrated on the other {calibrated}: where it was "
        "trained on them too, its accuracy is flattered."
    )


def _size_of(path: Path) -> tuple[int, int]:
    """Height and width of a photo as it is seen."""
    try:
        header = read_header(path.read_bytes())
    except (OSError, EdgennError):
        return 0, 0
    turned = header.orientation >= 5
    return (header.width, header.height) if turned else (header.height, header.width)
