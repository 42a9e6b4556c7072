"""What TensorBoard shows of a run: loss and accuracy of training and validation, a point for each epoch."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from edgenn.extras import require
from edgenn_device.errors import EdgennError

from .fit import Epoch


class TensorBoard:
    """Writes event files to FOLDER/train and FOLDER/validation, under the names that Keras's callback uses.

    What an earlier process wrote there is replaced: a resumed fit tells of all its epochs again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[str, Any] = {}

    def epoch(self, epoch: Epoch) -> None:
        """Add a point; the files appear with the first.

        Raises:
          EdgennError: they cannot be written.
        """
        tf = require("tensorflow")
        try:
            self._write(epoch)
        except tf.errors.OpError as error:
            reason = " ".join(str(error.message).split())[:200]
            raise EdgennError(f"{self._folder} cannot be written ({reason}): is there room on the disk?") from None

    def _write(self, epoch: Epoch) -> None:
        tf = require("tensorflow")
        if not self._writers:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._writers = {
                name: tf.summary.create_file_writer(str(self._folder / name)) for name in ("train", "validation")
            }
        train = {"loss": epoch.loss, "accuracy": epoch.accuracy, "learning_rate": epoch.learning_rate}
        validation = {"loss": epoch.val_loss, "accuracy": epoch.val_accuracy}
        for name, values in (("train", train), ("validation", validation)):
            writer = self._writers[name]
            with writer.as_default():
                for what, value in values.items():
                    # What tf.summary.scalar writes; but that function needs the TensorBoard package.
                    point = tf.constant(value, tf.float32)
                    tf.summary.write(f"epoch_{what}", point, step=epoch.epoch, metadata=_scalar(tf))
            writer.flush()

    def close(self) -> None:
        """Close the files."""
        for writer in self._writers.values():
            writer.close()


def _scalar(tf: Any) -> Any:
    metadata = tf.compat.v1.SummaryMetadata()
    metadata.plugin_data.plugin_name = "scalars"
    metadata.data_class = 1  # DATA_CLASS_SCALAR, tensorflow/core/framework/summary.proto
    return metadata
