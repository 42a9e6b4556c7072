"""A SavedModel as one Keras layer, so that it is fed, judged and converted as any other network.

Importing this module loads Keras and registers the layer. A SavedModel is a program: operators that reach for files or
for Python are refused before anything of it is loaded, and what is left computes with tensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgenn.extras import require
from edgenn_device.errors import EdgennError

keras = require("keras")
tf = require("tensorflow")

FILE = "saved_model.pb"
# The signature that every exporter writes, and Keras's own second choice.
_SIGNATURE = "serving_default"
# Operators that read or write files or call Python, beside those that load a SavedModel's own variables.
_REACHING_OUT = {
    "EagerPyFunc",
    "FixedLengthRecordReaderV2",
    "MatchingFiles",
    "PyFunc",
    "PyFuncStateless",
    "ReadFile",
    "TFRecordReaderV2",
    "TextLineReaderV2",
    "WholeFileReaderV2",
    "WriteFile",
}
_VARIABLES = {"MergeV2Checkpoints", "RestoreV2", "SaveV2"}


@keras.saving.register_keras_serializable(package="edgenn")
class SavedNetwork(keras.layers.Layer):  # type: ignore[misc,name-defined]
    """Computes what a signature of a SavedModel computes; its weights stay in its folder and are not trained.

    Args:
      folder: of the SavedModel.
      signature: name of the signature: one float32 input (batch, height, width, channels), one output.

    Raises:
      EdgennError: it cannot be loaded, or its signature is not of a classifier of pictures.
    """

    supports_jit = False

    def __init__(self, folder: str, signature: str, **options: Any) -> None:
        super().__init__(**options)
        self.folder, self.signature = folder, signature
        _check(Path(folder))
        try:
            # Kept: the function refers to the variables, and does not keep them alive.
            self._loaded = tf.saved_model.load(folder)
        except Exception as error:  # TensorFlow has no one type for a damaged folder
            reason = " ".join(str(error).split())
            raise EdgennError(f"{folder} cannot be loaded by TensorFlow: {reason[:300]}") from None
        function = self._loaded.signatures[signature]
        self._function = function
        inputs, outputs = function.structured_input_signature[1], function.structured_outputs
        (self._input, self.pictures), *more = inputs.items()
        (self._output, scores), *others = outputs.items()
        if more or others:
            raise EdgennError(
                f"{folder} has {len(inputs)} inputs and {len(outputs)} outputs: a classifier has one of each"
            )
        if self.pictures.dtype != tf.float32 or scores.dtype != tf.float32:
            raise EdgennError(
                f"{folder} takes {self.pictures.dtype.name} and gives {scores.dtype.name}: export it with float32"
            )
        self.input_shape_wanted = tuple(self.pictures.shape) if self.pictures.shape.rank == 4 else (None,) * 4
        if self.input_shape_wanted[0] not in (None, 1):
            raise EdgennError(f"{folder} takes {self.input_shape_wanted[0]} pictures at once: export it for any number")
        self._classes = scores.shape[-1] if scores.shape.rank else None

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(int(variable.shape.num_elements() or 0) for variable in self._function.variables)

    def call(self, pictures: Any) -> Any:
        def one(batch: Any) -> Any:
            return self._function(**{self._input: batch})[self._output]

        if self.input_shape_wanted[0] is None or pictures.shape[0] == 1:
            return one(pictures)
        shape = tf.TensorSpec([self._classes], tf.float32)
        return tf.map_fn(lambda picture: one(picture[None])[0], pictures, fn_output_signature=shape)

    def compute_output_spec(self, pictures: Any) -> Any:
        return keras.KerasTensor((pictures.shape[0], self._classes), dtype="float32")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "folder": self.folder, "signature": self.signature}


def network(folder: Path) -> Any:
    """The layer for a SavedModel's own signature.

    Raises:
      EdgennError: as `SavedNetwork`, or there are several signatures and none is the usual one.
    """
    _check(folder)
    signatures = _signatures(folder)
    if _SIGNATURE not in signatures and len(signatures) != 1:
        named = ", ".join(sorted(signatures)) or "none"
        raise EdgennError(f"{folder} has the signatures {named}: export it with one called {_SIGNATURE}")
    signature = _SIGNATURE if _SIGNATURE in signatures else next(iter(signatures))
    return SavedNetwork(str(folder.resolve()), signature, name=folder.resolve().name.replace("/", "_") or "network")


def _signatures(folder: Path) -> set[str]:
    return {
        name
        for graph in _program(folder).meta_graphs
        for name in graph.signature_def
        if not name.startswith("__saved_model")
    }


def _program(folder: Path) -> Any:
    from tensorflow.core.protobuf import saved_model_pb2

    try:
        return saved_model_pb2.SavedModel.FromString((folder / FILE).read_bytes())
    except Exception as error:  # protobuf has changed the type of this
        raise EdgennError(f"{folder / FILE} is no SavedModel ({error}): export it again") from None


def _check(folder: Path) -> None:
    """Refuse a program that does more than compute."""
    for operator, where in _operators(_program(folder)):
        of_the_saver = not where or "traced_save" in where or "traced_restore" in where
        if operator in _REACHING_OUT or (operator in _VARIABLES and not of_the_saver):
            raise EdgennError(
                f"{folder} reads or writes files or calls Python ({operator}), which no classifier of pictures needs: "
                "export the network alone"
            )


def _operators(program: Any) -> Iterator[tuple[str, str]]:
    """Every operator, with the function it stands in; "" in the graph itself, where TensorFlow keeps the saver."""
    for graph in program.meta_graphs:
        for node in graph.graph_def.node:
            yield node.op, ""
        for function in graph.graph_def.library.function:
            for node in function.node_def:
                yield node.op, function.signature.name
