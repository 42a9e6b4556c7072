"""What `edgenn run` can be asked for: by the command line, by a file, and what is wrong with it in one line."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenn_device.errors import EdgennError
from edgenn_device.options import Options, default_token_file

LEAST = {"model": "m.tflite", "source": "0"}


def test_a_file_says_it_all(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(
        """
        model = "m.tflite"
        source = 0
        sink = ["sqlite:events.db", "mqtt://broker"]
        web = true
        keep-uncertain = "unsure"
        roi = [0.25, 0, 0.5, 1]
        rotate = 90
        flip = "horizontal"
        size = "1280x720"
        exposure = "1/100"
        motion_gate = false
        delegate = "usb"
        name = "porch"
        threads = 2
        """
    )
    options = Options.load(path)
    assert options == Options(
        model="m.tflite",
        source="0",
        sink=("sqlite:events.db", "mqtt://broker"),
        web=("127.0.0.1", 8080),
        keep_uncertain="unsure",
        roi=(0.25, 0, 0.5, 1),
        rotate=90,
        flip="horizontal",
        size=(1280, 720),
        exposure=0.01,
        motion_gate=False,
        delegate="usb",
        name="porch",
        threads=2,
    )
    assert options.view.turned


def test_a_path_begins_at_home_where_no_shell_has_seen_it(monkeypatch):
    monkeypatch.setenv("HOME", "/home/anna")
    keys = ("model", "labels", "delegate", "web_token_file", "keep_uncertain")
    options = Options.of({"source": "0", **dict.fromkeys(keys, "~/x")})
    assert [getattr(options, key) for key in keys] == ["/home/anna/x"] * len(keys)
    # Nobody's home is no traceback.
    assert Options.of({**LEAST, "model": "~nobody here/m"}).model == "~nobody here/m"


def test_the_command_line_holds_against_the_file(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('model = "m.tflite"\nsource = "picamera"\nkeep-uncertain = "a"\ntop = 5\n')
    options = Options.load(path, {"source": "0", "keep_uncertain": "b", "top": None})
    assert (options.model, options.source, options.keep_uncertain, options.top) == ("m.tflite", "0", "b", 5)


def test_the_example_in_the_documentation_is_read():
    options = Options.load(Path(__file__).parents[2] / "docs" / "run.toml")
    assert options.source == "picamera"
    assert options.web is not None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, ("127.0.0.1", 8080)),
        (False, None),
        (9000, ("127.0.0.1", 9000)),
        ("9000", ("127.0.0.1", 9000)),
        (":9000", ("127.0.0.1", 9000)),
        ("0.0.0.0", ("0.0.0.0", 8080)),
        ("pi.local:81", ("pi.local", 81)),
        ("[::1]:81", ("::1", 81)),
        ("[::]", ("::", 8080)),
    ],
)
def test_where_the_page_is(value, expected):
    assert Options.of({**LEAST, "web": value}).web == expected


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"modle": "x"}, "unknown key 'modle'"),  # a slip
        ({"model": ""}, "model"),  # empty
        ({"source": None}, "--source"),  # missing
        ({"sink": [7]}, "sink"),
        ({"source": ["http://anna:secret@camera"]}, "source: …@camera'] is not possible"),  # a list; no password
        ({"threads": 0}, "threads 0"),
        ({"threads": True}, "threads"),  # true is no number
        ({"top": "3"}, "top"),
        ({"limit": -1}, "limit -1"),
        ({"fast": "yes"}, "fast"),
        ({"runtime": "tf"}, "runtime 'tf'"),
        ({"roi": "0,0,1"}, "roi"),
        ({"roi": "0,0,2,1"}, "roi"),
        ({"rotate": 45}, "rotate 45"),
        ({"flip": "left"}, "flip 'left'"),
        ({"size": "1280"}, "size"),
        ({"size": "0x10"}, "size 0x10"),
        ({"exposure": "1/0"}, "exposure"),
        ({"exposure": -1}, "exposure -1"),
        ({"exposure": True}, "exposure"),
        ({"web": "host:port"}, "web"),
        ({"web": "host:70000"}, "web port 70000"),
        ({"web": "[::1"}, "web"),
        ({"motion_gate": 1}, "motion_gate"),
        ({"name": " "}, "name"),
    ],
)
def test_what_is_wrong_is_one_line_that_names_its_key(given, said):
    with pytest.raises(EdgennError, match=said.replace("[", r"\[")) as raised:
        Options.of({**LEAST, **given}, "run.toml")
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith("run.toml: ")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"model =", "is not TOML"), (b"\xff\xfe", "is not TOML"), (None, "No such file")],
)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path, content, said):
    path = tmp_path / "run.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EdgennError, match=said) as raised:
        Options.load(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("box", ["0,0,2,1", "0,0,1"])
def test_how_a_region_is_written_is_said_once(box):
    with pytest.raises(EdgennError) as raised:
        Options.of({**LEAST, "roi": box})
    assert str(raised.value).count("X,Y,WIDTH,HEIGHT") == 1


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 10**6), st.floats(), st.text(max_size=8), st.binary(max_size=4)
)
keys = st.sampled_from(list(Options.__dataclass_fields__))


@given(st.dictionaries(keys, st.one_of(scalars, st.lists(scalars, max_size=4)), max_size=6))
def test_whatever_is_given_is_taken_or_refused_in_one_line(given):
    said = ""
    try:
        Options.of(given)
    except EdgennError as error:
        said = str(error)
    assert "\n" not in said


def test_the_token_is_the_service_s_own(monkeypatch, tmp_path):
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/edgenn")
    assert default_token_file() == Path("/var/lib/edgenn/web-token")
    monkeypatch.delenv("STATE_DIRECTORY")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert default_token_file() == tmp_path / "edgenn" / "web-token"
