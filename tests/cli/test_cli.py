import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgenn.cli import VERBS

EDGENN = [sys.executable, "-c", "from edgenn.cli import main; main()"]


def edgenn(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*EDGENN, *map(str, arguments)], capture_output=True, text=True, **options)  # type: ignore


def test_help_names_every_verb_and_loads_nothing_heavy():
    code = (
        "import sys\nfrom edgenn.cli import main\nsys.argv = ['edgenn', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print([m for m in ('tensorflow', 'keras', 'cv2', 'numpy', 'ai_edge_litert') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")
    assert all(verb in done.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_shows_an_example(verb):
    done = edgenn(verb, "--help")
    assert done.returncode == 0
    assert f"edgenn {verb}" in done.stdout.split("Example")[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fly"], "no verb 'fly': choose one of demo, "),  # a verb that is not one
        (["trian"], "no verb 'trian': did you mean train?"),  # a slip
        (["train"], "Missing argument 'PHOTOS'; try"),  # click's own sentence has a full stop
        (["run", "MODEL", "--source", "PHOTOS/circle", "--roi", "2,2,2,2"], "not within the picture"),
        (["train", "nowhere", "--out", "x"], "nowhere"),  # photos that are not there
        (["train", "nowhere"], "--out"),  # an option that is needed
        (["train", "PHOTOS", "--out", "x", "--network", "lenet"], "unknown network 'lenet'"),  # no such network
        (["train", "PHOTOS", "--out", "x", "--classes", "circle,star"], "star"),  # no such class
        (["train", "PHOTOS", "--out", "x", "--classes", ","], "--classes names none"),  # an empty variable
        (["evaluate", "MODEL", "PHOTOS", "--classes", ","], "--classes names none"),
        (["search", "PHOTOS", "--out", "x", "--classes", ""], "--classes names none"),
        (["search", "PHOTOS", "--out", "x", "--networks", " ,"], "--networks names none"),
        (["run", "MODEL", "--source", "PHOTOS", "--threads", "257"], "1<=x<=256"),
        (["convert", "nowhere"], "there is no run"),  # a run that is not there
        (["evaluate", "nowhere.tflite", "PHOTOS"], "nowhere.tflite"),  # a model that is not there
        (["inspect", "PHOTOS/circle/00.png"], "not a"),  # a file that is not a model
        (["run", "MODEL", "--source", "nowhere.mp4"], "nowhere.mp4"),  # a source that is not there
        (["profile", "PHOTOS/circle/00.png"], "not a"),  # again a file that is not a model
    ],
)
def test_a_wrong_request_is_status_2_and_one_line(arguments, said, tiny, tmp_path):
    places = {"PHOTOS": str(tiny / "photos"), "MODEL": str(tiny / "run" / "model.tflite")}
    for name, place in places.items():
        arguments = [argument.replace(name, place) for argument in arguments]
    done = edgenn(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_no_verb_at_all_shows_the_help_as_it_is():
    done = edgenn()
    assert done.returncode == 2
    shown = edgenn("--help").stdout
    assert done.stderr.split() == shown.split()
    assert len(done.stderr.splitlines()) > len(VERBS)


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "nowhere", "--out", "x"],  # looked for before the seconds in which TensorFlow loads
        ["train", "PHOTOS", "--out", "FILE"],
        ["train", "PHOTOS", "--out", "x", "--classes", "circle,star"],
        ["convert", "nowhere"],
        ["debug", "nowhere"],
    ],
)
def test_what_is_wrong_at_once_is_told_before_tensorflow_loads(arguments, tiny, tmp_path):
    (tmp_path / "file").touch()
    places = {"PHOTOS": str(tiny / "photos"), "FILE": str(tmp_path / "file")}
    arguments = [places.get(word, word) for word in arguments]
    code = (
        "import sys, atexit\nfrom edgenn.cli import main\n"
        "atexit.register(lambda: print('tensorflow' in sys.modules))\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "False\n"), done.stderr


def test_a_defect_is_a_line_that_can_be_read():
    code = (
        "from edgenn import cli\ndef verb(**_):\n    raise ValueError('1, ' * 300_000)\ncli.cli.main = verb\ncli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("edgenn: a defect in edgenn: ValueError: 1, 1, ")
    assert done.stderr.endswith("… (EDGENN_DEBUG=1 shows where)\n")
    assert len(done.stderr) < 400


def test_a_reader_that_has_gone_is_no_failure(tiny):
    reading, writing = os.pipe()
    os.close(reading)
    command = [*EDGENN, "inspect", str(tiny / "run" / "model.tflite")]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_verb_whose_extra_is_missing_says_what_to_install(tmp_path, tiny):
    """As on a Pi: TensorFlow is not there, which a finder that refuses it stands in for."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nclass Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('tensorflow', 'keras', 'matplotlib', 'jinja2'):\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name.partition('.')[0])\n"
        "sys.meta_path.insert(0, Refuse())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = edgenn("train", tiny / "photos", "--out", tmp_path / "x", env=environment)
    assert done.returncode == 2
    assert "pip install 'edgenn[train]'" in done.stderr
    model = tiny / "run" / "model.tflite"
    for verb in (["inspect", model], ["run", model, "--source", tiny / "photos" / "cross", "--limit", "2"], ["doctor"]):
        done = edgenn(*verb, env=environment)
        assert "edgenn[train]" not in done.stderr
        assert done.returncode in (0, 1), done.stderr


def test_training_and_converting_by_command(tiny: Path, tmp_path: Path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("size = 16\nepochs = 1\nbatch = 16\n[network_options]\nwidth = 4\ndepth = 1\n")
    done = edgenn("train", tiny / "photos", "--out", tmp_path / "run", "--recipe", recipe, "--seed", 5, "--json")
    assert done.returncode == 0, done.stderr
    trained = json.loads(done.stdout)
    assert {"run", "network", "parameters", "epochs", "seconds", "validation"} <= set(trained)
    settings = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (settings["recipe"]["seed"], settings["recipe"]["size"]) == (5, 16)
    done = edgenn("convert", tmp_path / "run", "--max-drop", "100", "--json")
    assert done.returncode == 0, done.stderr
    converted = json.loads(done.stdout)
    assert converted["passed"]
    assert Path(converted["model"]).stat().st_size == converted["bytes"]


def test_a_full_disk_is_one_line_and_leaves_the_old_file(tiny, tmp_path):
    """A real disk that is full: a file system of one megabyte, where this user may mount one."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a file system needs root")
    try:
        old = small / "model.tflite"
        old.write_bytes(b"old")
        (small / "filler").write_bytes(bytes(2**20 - 3 * 4096))
        done = edgenn("convert", tiny / "run", "--out", old, "--overwrite", "--max-drop", "100")
        assert done.returncode == 2
        assert "no room left on the disk" in done.stderr.splitlines()[-1]
        assert old.read_bytes() == b"old"
        assert sorted(p.name for p in small.iterdir()) == ["filler", "model.tflite"]
        done = edgenn("train", tiny / "photos", "--out", small / "run", "--epochs", 1, "--size", 16, "--width", 64)
        assert done.returncode == 2, done.stderr
        assert "no room left on the disk" in done.stderr.splitlines()[-1]
        assert sorted(p.name for p in small.iterdir()) == ["filler", "model.tflite"]
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_thread_that_was_left_in_a_native_library_does_not_abort_the_process():
    """As one that still works for a reload when the service is stopped: most times it ended with SIGABRT."""
    code = """
import atexit, sys, threading
import cv2
import numpy as np
from edgenn import cli

picture, began = np.zeros((480, 640, 3), np.uint8), threading.Event()

def encode():
    while True:
        cv2.imencode(".jpg", picture)
        began.set()

def verb(**_):
    atexit.register(print, "last words")
    for _ in range(2):
        threading.Thread(target=encode, daemon=True).start()
    began.wait()
    print("done")
    return 3

cli.cli.main = verb
cli.main()
"""
    for _ in range(5):
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert (ended.returncode, ended.stdout.split("\n")) == (3, ["done", "last words", ""]), ended.stderr
