"""Several processors and several machines train as one does; each is a process, for TensorFlow is set up only once."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from edgenn.training import distribute
from edgenn_device.errors import EdgennError

_CHILD = """
import json, os, sys
import numpy as np
from edgenn.extras import require
tf = require("tensorflow")
if sys.argv[1] == "two processors":
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
else:
    from edgenn.training import distribute
    strategy = distribute.strategy()
keras = require("keras")
from edgenn import networks
from edgenn.training.fit import fit, predict
from tests.training.samples import STILL, recipe, shapes

keras.utils.set_random_seed(1)
with strategy.scope():
    model = networks.build("simple_cnn", (32, 32, 3), 3, width=4, depth=2, dropout=0.0)
# 21 photos in batches of 8: the last batch is not full. Nothing is drawn at random beyond the order: machines draw for
# their own photos.
how = recipe(epochs=3, batch=8, ema=0.9, balance="weights", augmentation=STILL)
epochs = fit(model, shapes((10, 6, 5), 0, how), shapes(7, 500, how), how)
print(json.dumps({
    "epochs": [[e.loss, e.accuracy, e.val_loss, e.val_accuracy] for e in epochs],
    "weights": [float(np.abs(w).sum()) for w in model.get_weights()],
}))
"""


def trained(how: str = "one", config: dict | None = None) -> subprocess.Popen:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    if config:
        environment["TF_CONFIG"] = json.dumps(config)
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD, how],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def result(process: subprocess.Popen) -> dict:
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    return json.loads(said.splitlines()[-1])


def alike(one: dict, other: dict) -> bool:
    return np.allclose(one["epochs"], other["epochs"], atol=2e-4) and np.allclose(
        one["weights"], other["weights"], rtol=1e-3
    )


def test_two_processors_reach_what_one_reaches():
    one, two = trained(), trained("two processors")
    assert alike(result(one), result(two))


@pytest.mark.slow
def test_two_machines_reach_what_one_reaches():
    with socket.socket() as first, socket.socket() as second:
        for listener in (first, second):
            listener.bind(("127.0.0.1", 0))
        workers = [f"127.0.0.1:{listener.getsockname()[1]}" for listener in (first, second)]
    machines = [
        trained(config={"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}) for index in (0, 1)
    ]
    results = [result(machine) for machine in machines]
    assert alike(result(trained()), results[0])
    assert results[0] == results[1]


@pytest.mark.slow
def test_of_two_machines_that_train_a_run_the_first_writes_it(photos, tmp_path):
    with socket.socket() as first, socket.socket() as second:
        for listener in (first, second):
            listener.bind(("127.0.0.1", 0))
        workers = [f"127.0.0.1:{listener.getsockname()[1]}" for listener in (first, second)]
    command = [
        sys.executable,
        "-c",
        "from edgenn.cli import main; main()",
        "train",
        photos,
        "--size",
        "16",
        "--epochs",
        "2",
        "--batch",
        "16",
    ]
    processes = [
        subprocess.Popen(
            # A folder of its own for each shows who wrote; where they share storage it is one.
            [*command, "--width", "4", "--depth", "1", "--out", tmp_path / f"run{index}"],
            env={
                **os.environ,
                "TF_CONFIG": json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}),
            },
        )
        for index in (0, 1)
    ]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    assert (tmp_path / "run0" / "run.json").exists()
    assert not (tmp_path / "run1").exists()


@pytest.mark.parametrize(
    "config",
    ["{", "[]", '{"cluster": {}}', '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}'],
)
def test_a_wrong_tf_config_is_one_line(monkeypatch, config):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(EdgennError, match="TF_CONFIG is wrong") as caught:
        distribute.strategy()
    assert "\n" not in str(caught.value)


def test_alone_there_is_one_machine_and_it_writes(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    strategy = distribute.strategy()
    assert (strategy.num_replicas_in_sync, distribute.machines(strategy), distribute.is_chief(strategy)) == (1, 1, True)
