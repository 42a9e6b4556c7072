"""The same records from a Ray cluster, also when a worker of it is killed."""

import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from edgenn.tagging import output, ray_engine
from edgenn.tagging.engine import rules_for, tag
from edgenn.tagging.ray_engine import tag_on_ray
from edgenn.tagging.tagger import Rules
from edgenn_device import model_file
from edgenn_device.errors import EdgennError

ray = pytest.importorskip("ray")


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


@pytest.mark.slow
def test_two_machines_and_a_worker_killed_in_mid_run_lose_nothing(model, many, cluster, tmp_path):
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
    loaded = model_file.load(model)
    summary = tag_on_ray(loaded, rules_for(loaded, 3, None, "auto"), paths, str(out), workers=2)
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


@pytest.mark.slow
def test_paths_and_out_count_from_the_folder_in_which_they_were_typed(model, catalogue, cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the cluster was started elsewhere
    summary = tag_on_ray(model_file.load(model), Rules(), ["catalogue/circle", str(catalogue / "cross")], "tags")
    assert (summary.pictures, summary.unreadable) == (82, 2)
    assert summary.out == "tags"
    rows, _ = rows_of(tmp_path / "tags")
    assert [row["path"] for row in rows] == [
        record.path for record in tag(model, ["catalogue/circle", str(catalogue / "cross")])
    ]


@pytest.mark.slow
def test_what_a_machine_of_the_cluster_says_last_is_told(model, catalogue, cluster, tmp_path):
    with pytest.raises(EdgennError) as raised:
        tag_on_ray(model_file.load(model), Rules(runtime="none"), [str(catalogue)], str(tmp_path / "tags"))
    assert "EdgennError: unknown runtime 'none'" in str(raised.value)
    assert "Traceback" not in str(raised.value)


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ("ray::TagBlock()\n  File x\n    here\nValueError: why\n\n", "ValueError: why"),  # a remote traceback
        ("", "RayError"),  # nothing
    ],
)
def test_of_a_traceback_the_last_line_is_told(said, cause):
    assert ray_engine._cause(ray.exceptions.RayError(said)) == cause


@pytest.fixture
def unreachable(monkeypatch):
    """Whoever reaches Ray has not refused what is to be refused before."""
    monkeypatch.setattr(ray_engine, "_connect", lambda ray: pytest.fail("not refused"))


def test_what_exists_is_refused(model, unreachable, tmp_path):
    (tmp_path / "tags").mkdir()
    (tmp_path / "tags" / "mine").touch()
    with pytest.raises(EdgennError, match="--overwrite"):
        tag_on_ray(model_file.load(model), Rules(), ["pics"], str(tmp_path / "tags"))
    assert (tmp_path / "tags" / "mine").exists()


@pytest.mark.parametrize(
    ("theirs", "overwrite"),
    [
        ("tags.partial/mine.txt", False),  # a folder that only looks like that of an earlier run
        ("tags.partial/rows/mine.txt", False),
        ("tags.partial/1.parquet", False),
        ("tags.partial", False),  # a file
        ("tags/a/mine.txt", True),  # beside rows of an earlier run
        ("tags", True),
    ],
)
def test_what_is_not_its_own_is_left_alone(model, unreachable, tmp_path, theirs, overwrite):
    mine = tmp_path / theirs
    mine.parent.mkdir(parents=True, exist_ok=True)
    mine.write_text("mine")
    for own in ("tags/1.parquet",) if theirs == "tags/a/mine.txt" else ():
        (tmp_path / own).touch()
    with pytest.raises(EdgennError, match=f"{mine} was not put there by edgenn tag: move it away"):
        tag_on_ray(model_file.load(model), Rules(), ["pics"], str(tmp_path / "tags"), overwrite=overwrite)
    assert mine.read_text() == "mine"


@pytest.mark.parametrize("name", ["tags.partial/listing/0.parquet", "tags.partial/rows/1.parquet", "tags/1.parquet"])
def test_what_an_earlier_run_left_is_not_in_the_way(model, tmp_path, monkeypatch, name):
    class Reached(Exception):
        pass

    def connect(ray):
        raise Reached

    monkeypatch.setattr(ray_engine, "_connect", connect)
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).touch()
    with pytest.raises(Reached):
        tag_on_ray(model_file.load(model), Rules(), ["pics"], str(tmp_path / "tags"), overwrite=True)


def test_an_empty_folder_of_an_object_store_is_not_in_the_way(storage):
    storage.call_s3("put_object", Bucket="shop", Key="tags/", Body=b"")
    system, _ = ray_engine.file_system("s3://shop")
    ray_engine._refuse_others(system, "s3://shop/tags", "*.parquet")
    system.pipe("shop/tags/mine.txt", b"mine")
    with pytest.raises(EdgennError, match=r"s3://shop/tags/mine\.txt was not put there"):
        ray_engine._refuse_others(system, "s3://shop/tags", "*.parquet")


@pytest.mark.parametrize(
    ("path", "out"),
    [
        ("pics", "pics"),
        ("pics/a/*.jpg", "pics"),  # below it
        ("{here}/b/../pics/1.jpg", "./pics/"),  # under another name
        ("s3://shop/pics/1.jpg", "s3://shop/pics/"),
    ],
)
def test_pictures_are_not_replaced_by_their_labels(model, unreachable, tmp_path, monkeypatch, path, out):
    (tmp_path / "pics").mkdir()
    (tmp_path / "pics" / "1.jpg").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EdgennError, match=r"^--out .* would replace .*: give another place$"):
        tag_on_ray(model_file.load(model), Rules(), [path.format(here=tmp_path)], out, overwrite=True)
    assert (tmp_path / "pics" / "1.jpg").exists()


@pytest.mark.parametrize("remote", [False, True])
def test_rows_take_the_place_of_those_of_an_earlier_run(tmp_path, request, remote):
    base = "s3://shop" if remote else str(tmp_path)
    if remote:
        request.getfixturevalue("storage")
    system, base = ray_engine.file_system(base)
    system.makedirs(f"{base}/tags.partial/rows", exist_ok=True)
    system.makedirs(f"{base}/tags", exist_ok=True)
    for name in ("tags.partial/rows/1.parquet", "tags.partial/rows/2.parquet", "tags/0.parquet"):
        system.pipe(f"{base}/{name}", name.encode())
    ray_engine._put_in_place(system, f"{base}/tags.partial/rows", f"{base}/tags")
    found = {path.removeprefix(base): system.cat(path).decode() for path in system.find(base)}
    assert found == {f"/tags/{name}": f"tags.partial/rows/{name}" for name in ("1.parquet", "2.parquet")}


def test_an_actor_finds_relative_paths_and_its_rows_say_them(model, catalogue, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = ["catalogue/circle/00.png", "./catalogue/cross/00.png", str(catalogue / "square" / "00.png")]
    system, folder = ray_engine.file_system(str(tmp_path / "listing"))
    _, blocks = ray_engine._write_listing(iter(paths), system, folder)
    monkeypatch.chdir("/")
    actor = ray_engine.TagBlock(model_file.load(model), Rules(), folder, str(tmp_path))
    (table,) = actor({"file": [blocks[0]["file"]], "block": [0]})
    assert [(row["path"], row["error"]) for row in table.to_pylist()] == [(path, "") for path in paths]


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "ray://127.0.0.1:{port}"])
def test_a_cluster_that_is_not_there_is_told(monkeypatch, address):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **options: pytest.fail("waits for ever"))
    with socket.socket() as bound:  # nobody listens
        bound.bind(("127.0.0.1", 0))
        where = address.format(port=bound.getsockname()[1])
        monkeypatch.setenv("RAY_ADDRESS", where)
        with pytest.raises(EdgennError, match=f"no Ray cluster at {where} .*refused.*: check RAY_ADDRESS"):
            ray_engine._connect(ray)
