"""The same records from a Ray cluster, also when a worker of it is killed."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from edgenn.tagging import output
from edgenn.tagging.engine import tag
from edgenn.tagging.tagger import Rules
from edgenn_device import model_file
from edgenn_device.errors import EdgennError

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster():
    """A head without a CPU and two machines of one CPU each."""
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    workers = [found.add_node(num_cpus=1), found.add_node(num_cpus=1)]
    ray.init(address=found.address, log_to_driver=False, logging_level="ERROR")
    yield found, workers
    ray.shutdown()
    found.shutdown()


def rows_of(folder):
    import pyarrow.dataset as dataset

    table = dataset.dataset(str(folder), format="parquet").to_table()
    return sorted(table.to_pylist(), key=lambda row: row["row"]), table


def test_two_machines_and_a_worker_killed_in_mid_run_lose_nothing(model, many, cluster, tmp_path):
    from edgenn.tagging.ray_engine import tag_on_ray

    out = tmp_path / "tags"
    killed = []

    def kill_one():
        """One of two actors that have both begun to tag, by SIGKILL."""
        end = time.monotonic() + 120
        while not killed and time.monotonic() < end:
            busy = []
            for process in Path("/proc").glob("[0-9]*"):
                try:
                    name = (process / "cmdline").read_bytes()
                    # Time it has computed, in hundredths of a second (proc(5)): loading the model takes less.
                    ticks = int((process / "stat").read_text().rpartition(")")[2].split()[11])
                except (OSError, ValueError, IndexError):
                    continue
                if b"MapWorker" in name and b"TagBlock" in name and ticks > 250:
                    busy.append(int(process.name))
            if len(busy) == 2:
                os.kill(busy[0], signal.SIGKILL)
                killed.append(busy[0])
            time.sleep(0.02)

    paths = [str(many)] * 8
    killer = threading.Thread(target=kill_one)
    killer.start()
    summary = tag_on_ray(model_file.load(model), Rules(), paths, str(out), workers=2)
    killer.join()
    assert killed
    rows, table = rows_of(out)
    local = [*tag(model, paths)]
    assert summary.pictures == len(rows) == len(local) == 24_000
    assert [row["row"] for row in rows] == [*range(24_000)]
    assert table.column("row").to_pylist() == [*range(24_000)]  # written in the order of the listing
    for row, record in zip(rows, local, strict=True):
        row.pop("row")
        assert row == output.parquet_row(record) | {"confidence": row["confidence"], "top": row["top"]}
        assert row["confidence"] == pytest.approx(record.confidence)
    assert [path.name for path in tmp_path.iterdir()] == ["tags"]


def test_what_exists_is_refused(model, many, cluster, tmp_path):
    from edgenn.tagging.ray_engine import tag_on_ray

    (tmp_path / "tags").mkdir()
    (tmp_path / "tags" / "mine").touch()
    with pytest.raises(EdgennError, match="--overwrite"):
        tag_on_ray(model_file.load(model), Rules(), [str(many)], str(tmp_path / "tags"))
    assert (tmp_path / "tags" / "mine").exists()
