from edgenn.extras import require
from edgenn.training.fit import Epoch
from edgenn.training.tensorboard import TensorBoard


def points(folder):
    tf = require("tensorflow")
    found = []
    for file in sorted(folder.iterdir()):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                assert value.metadata.plugin_data.plugin_name == "scalars"
                found.append((event.step, value.tag, round(float(tf.make_ndarray(value.tensor)), 3)))
    return found


def test_every_epoch_is_a_point_in_both_curves_and_a_resumed_run_tells_them_anew(tmp_path):
    epochs = [Epoch(n, 1 / n, 0.5, 2 / n, 0.25, 0.125, 1.0) for n in (1, 2)]
    killed = TensorBoard(tmp_path / "logs")
    killed.epoch(epochs[0])
    assert not (tmp_path / "other").exists()
    board = TensorBoard(tmp_path / "logs")
    for epoch in epochs:
        board.epoch(epoch)
    board.close()
    assert points(tmp_path / "logs" / "validation") == [
        (1, "epoch_loss", 2.0),
        (1, "epoch_accuracy", 0.25),
        (2, "epoch_loss", 1.0),
        (2, "epoch_accuracy", 0.25),
    ]
    assert (2, "epoch_learning_rate", 0.125) in points(tmp_path / "logs" / "train")


def test_nothing_is_written_before_the_first_epoch(tmp_path):
    TensorBoard(tmp_path / "logs").close()
    assert not (tmp_path / "logs").exists()
