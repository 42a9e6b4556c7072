"""What several tests of networks share: conversion in this process, because a child for each would take long."""

import subprocess

import numpy as np
import pytest

from edgenn.conversion import tflite, worker
from edgenn.extras import require
from edgenn_device import model_file
from edgenn_device.card import Card, InputSpec


@pytest.fixture
def convert(tmp_path, monkeypatch):
    """convert(model, scheme, io, target, calibration): writes model.tflite into tmp_path and returns it, read back.

    Its normalisation statistics become as uneven as trained ones first.
    """

    def here(command, **_):
        worker.main(command[-1])
        return subprocess.CompletedProcess(command, 0, "", "")

    def converted(model, scheme="tensorflow", io="uint8", target="pi", calibration=None):
        keras = require("keras")
        random = np.random.RandomState(1)
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.set_weights([random.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
        model.save(tmp_path / "converted.keras")
        if calibration is None:
            calibration = random.randint(0, 256, (4, *model.input_shape[1:]), np.uint8)
        with monkeypatch.context() as patch:
            patch.setattr(tflite.subprocess, "run", here)
            content = tflite.convert_in_child(
                tmp_path / "converted.keras", calibration, scheme=scheme, io=io, per_tensor_dense=target == "coral"
            )
        height, width, channels = model.input_shape[1:]
        dtype = io if scheme == "tensorflow" else "float32"
        spec = InputSpec(height, width, channels, "rgb" if channels == 3 else "grey", "stretch", dtype)
        labels = tuple(f"class {number}" for number in range(model.output_shape[-1]))
        # A float file must say that it takes bytes: without a card, another normalisation is assumed.
        content = model_file.attach(content, Card("converted", labels, spec))
        (tmp_path / "model.tflite").write_bytes(content)
        return model_file.load(tmp_path / "model.tflite")

    return converted
