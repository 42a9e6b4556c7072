"""The file that travels: what goes in comes out, what was damaged or is something else is refused with one line."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import flatbuffers
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgenn.conversion import metadata as writer
from edgenn_device import metadata
from edgenn_device.card import Card, InputSpec
from edgenn_device.errors import EdgennError
from edgenn_device.model_file import CARD, LABELS, ModelFile, attach, load

FOLDER = Path(__file__).parents[1] / "data_files"
CORAL = Path(__file__).parents[3] / "shared" / "models" / "coral"
TINY = (FOLDER / "tiny_int8.tflite").read_bytes()
NAMES = ("t-shirt", "chemise à carreaux", "куртка")
OWN = Card("tiny", NAMES, InputSpec(32, 32), metrics={"int8": {"accuracy": 0.5}})
WITH_METADATA = writer.add(TINY, OWN)

needs_coral = pytest.mark.skipif(not CORAL.exists(), reason="Coral's test models are not here")


def stored(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def zipped(*entries: tuple[str, bytes], compression: int = zipfile.ZIP_STORED, before: bytes = TINY) -> bytes:
    out = io.BytesIO(before)
    with zipfile.ZipFile(out, "a", compression) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return out.getvalue()


def forged(edit: Callable[[schema.ModelT], object], name: str = "tiny_int8") -> bytes:
    model = schema.ModelT.InitFromPackedBuf((FOLDER / f"{name}.tflite").read_bytes(), 0)
    edit(model)
    builder = flatbuffers.Builder(16384)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    content = attach(WITH_METADATA, OWN)
    model = load(stored(tmp_path / "tiny.tflite", content))
    assert model.content == WITH_METADATA
    assert model.labels == NAMES
    assert model.classes == 3
    assert model.input == OWN.input
    assert model.assumed == ()
    assert model.card is not None
    assert replace(model.card, sha256="") == OWN
    assert content == attach(WITH_METADATA, OWN)  # equal input, equal file
    assert content == attach(content, OWN)  # a zip that is there is replaced
    assert b"content=" not in repr(model).encode()


def test_the_zip_is_what_other_tools_expect(tmp_path: Path) -> None:
    path = stored(tmp_path / "tiny.tflite", attach(WITH_METADATA, OWN))
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == [LABELS, CARD]
        assert all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
        assert archive.read(LABELS).decode().splitlines() == list(NAMES)
        assert json.loads(archive.read(CARD))["name"] == "tiny"


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    content = attach(WITH_METADATA, OWN)
    path = tmp_path / "tiny.tflite"
    for size in (*range(0, len(WITH_METADATA), 97), *range(len(WITH_METADATA), len(content))):
        with pytest.raises(EdgennError):
            load(stored(path, content[:size]))


def test_no_changed_byte_goes_unnoticed(tmp_path: Path) -> None:
    """Every other byte changed: the load fails, or what was changed is a part of the zip that says nothing."""
    content = attach(WITH_METADATA, OWN)
    path = tmp_path / "tiny.tflite"
    whole = load(stored(path, content))
    for at in range(0, len(content), 2):
        stored(path, content[:at] + bytes([content[at] ^ 0x15]) + content[at + 1 :])
        try:
            model = load(path)
        except EdgennError:
            continue
        assert at >= len(WITH_METADATA)
        assert model == whole


@pytest.mark.parametrize(
    ("card", "reason"),
    [
        (replace(OWN, labels=("a", "b")), "2 labels and the model 3 scores"),
        (replace(OWN, input=InputSpec(64, 32)), r"uint8 \(1, 64, 32, 3\)"),
        (replace(OWN, input=InputSpec(32, 32, dtype="int8")), "input is int8"),
        (replace(OWN, input=InputSpec(32, 32, channels=1, colour="grey")), r"\(1, 32, 32, 1\)"),
        (replace(OWN, labels=("a\nb", "c", "d")), "line of its own"),
        (replace(OWN, labels=("", "c", "d")), "line of its own"),
        (replace(OWN, labels=("\x1b[2J", "c", "d")), "control characters"),  # it would clear the terminal
        (replace(OWN, name="\x1b]0;x"), "control characters"),
    ],
)
def test_a_card_of_another_model_is_not_attached(card: Card, reason: str) -> None:
    with pytest.raises(EdgennError, match=reason):
        attach(TINY, card)


@pytest.mark.parametrize(
    ("card", "reason"),
    [
        (replace(OWN, sha256="0" * 64), "checksum"),
        (replace(OWN, sha256=""), "checksum"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"schema": 99}', "pip install -U edgenn"),
        ('{"schema": 1}', "incomplete"),
        (b"\xff\xfe", "not JSON"),
    ],
)
def test_a_wrong_card_is_refused(card: Card | str | bytes, reason: str, tmp_path: Path) -> None:
    text = card.to_json() if isinstance(card, Card) else card
    content = zipped((CARD, text.encode() if isinstance(text, str) else text))
    with pytest.raises(EdgennError, match=reason):
        load(stored(tmp_path / "tiny.tflite", content))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        # 200 MB of zeros in 200 kB
        (zipped((LABELS, bytes(200 << 20)), compression=zipfile.ZIP_DEFLATED), "larger than 4 MB"),
        (zipped(*((f"{n}.txt", b"x") for n in range(65))), "65 files"),
        (zipped(("x" * 60_000, b""), ("y" * 60_000, b"")), "2 files"),  # a directory of long names
        (zipped((LABELS, b"a"), compression=zipfile.ZIP_LZMA)[:-30] + b"\0" * 30, "TFLite Metadata|middle|damaged"),
    ],
)
def test_a_hostile_zip_is_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(EdgennError, match=reason):
        load(stored(tmp_path / "tiny.tflite", content))


def test_names_in_the_zip_are_not_paths(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    escape = tmp_path / "escaped.txt"
    content = zipped(("../escaped.txt", b"x"), (str(escape), b"x"))
    assert load(stored(place / "tiny.tflite", content)).card is None
    assert [path.name for path in tmp_path.rglob("*")] == ["place", "tiny.tflite"]


def test_bytes_that_look_like_a_zip_are_none(tmp_path: Path) -> None:
    """The marks of a zip inside the model, where they do not end the file, mean nothing."""
    content = forged(lambda m: setattr(m, "description", b"PK\x05\x06 and PK\x03\x04"))
    assert load(stored(tmp_path / "tiny.tflite", content)).content == content


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.tflite", b"", "is empty"),
        ("model.keras", zipped(("config.json", b"{}"), before=b""), "edgenn convert"),
        ("model.h5", b"\x89HDF\r\n\x1a\n" + bytes(100), "edgenn convert"),
        ("renamed.tflite", b"\x89HDF\r\n\x1a\n" + bytes(100), "edgenn convert"),  # by content, not by name
        ("photos.zip", zipped(("a.jpg", b"x"), before=b""), "zip archive"),
        ("notes.txt", b"a few words\n" * 10, "TFL3"),
        ("pointer.tflite", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        ("short.tflite", TINY[:8], "damaged"),
    ],
)
def test_something_else_is_refused(name: str, content: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(EdgennError, match=reason) as refusal:
        load(stored(tmp_path / name, content))
    assert name in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_path_that_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, reason in (
        (tmp_path / "missing.tflite", "there is no model"),
        (tmp_path, "is a folder"),
        (tmp_path / "pipe", "not a regular file"),  # would wait for ever
        ("a\0b", "cannot be read|there is no"),
    ):
        with pytest.raises(EdgennError, match=reason):
            load(path)


@pytest.mark.parametrize(
    ("name", "edit", "reason"),
    [
        ("tiny_vector", lambda m: None, "not a picture"),  # (1, 16)
        ("tiny_float", lambda m: _reshape(m, [1, 3, 32, 24]), "channels last"),
        ("tiny_float", lambda m: _reshape(m, [2, 32, 16, 3]), "not a picture"),  # a batch of two
        ("tiny_float", lambda m: _reshape(m, [1, 32, 16, 6]), "not a picture"),  # six channels
        ("tiny_float", lambda m: _reshape(m, [1, 1, 1024, 3]), None),  # odd, but one
        ("tiny_float", lambda m: _reshape(m, [1, 32, 32, 3], [-1, 32, 32, 3]), None),  # dynamic batch
        ("tiny_float", lambda m: _reshape(m, [1, 32, 32, 3], [1, -1, -1, 3]), "fixed size"),
        ("tiny_float", lambda m: _reshape(m, [1, 9000, 1, 3]), "sides are 1 to 8192"),
        ("tiny_float", lambda m: setattr(m.subgraphs[0], "outputs", [0, 1]), "2 outputs"),
        ("tiny_float", lambda m: setattr(m.subgraphs[0], "outputs", list(m.subgraphs[0].inputs)), "score a class"),
    ],
)
def test_only_picture_classifiers_are_taken(
    name: str, edit: Callable[[schema.ModelT], object], reason: str | None, tmp_path: Path
) -> None:
    path = stored(tmp_path / "model.tflite", forged(edit, name))
    if reason is None:
        assert load(path).classes == 3
    else:
        with pytest.raises(EdgennError, match=reason):
            load(path)


def _reshape(model: schema.ModelT, shape: list[int], signature: list[int] | None = None) -> None:
    subgraph = model.subgraphs[0]
    tensor = subgraph.tensors[subgraph.inputs[0]]
    subgraph.inputs, subgraph.outputs = list(subgraph.inputs), list(subgraph.outputs)
    tensor.shape, tensor.shapeSignature = shape, signature


def test_a_model_from_elsewhere_is_guessed_at_and_says_so() -> None:
    model = load(FOLDER / "tiny_float.tflite")
    assert model.input == InputSpec(32, 32, dtype="float32", mean=127.5, std=127.5)
    assert model.labels == ()
    assert len(model.assumed) == 3
    assert any("127.5" in sentence for sentence in model.assumed)
    model = load(FOLDER / "tiny_int8.tflite")
    assert model.input == InputSpec(32, 32, dtype="uint8")
    assert any("as they are" in sentence for sentence in model.assumed)


def described(card: Card, name: str, **entries: bytes) -> bytes:
    """A model with TFLite Metadata made from `card`, and no card."""
    content = writer.add((FOLDER / f"{name}.tflite").read_bytes(), card)
    return zipped(*((key.replace("_", "."), value) for key, value in entries.items()), before=content)


def test_a_model_with_metadata_says_how_it_is_fed(tmp_path: Path) -> None:
    spec = InputSpec(32, 32, dtype="float32", mean=127.0, std=128.0)
    content = described(Card("other", NAMES, spec), "tiny_float", labels_txt="\n".join(NAMES).encode())
    model = load(stored(tmp_path / "other.tflite", content))
    assert model.card is None
    assert model.input == spec
    assert model.labels == NAMES
    assert model.assumed == ("Pictures are stretched to 32x32.",)


def test_labels_that_the_metadata_names_must_be_there(tmp_path: Path) -> None:
    path = stored(tmp_path / "cut.tflite", WITH_METADATA)
    with pytest.raises(EdgennError, match="truncated"):
        load(path)
    assert load(path, stored(tmp_path / "names.txt", b"a\nb\nc\n")).labels == ("a", "b", "c")


def test_a_normalisation_by_channel_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = metadata.Metadata(mean=(123.7, 116.8, 103.9), std=(58.4,))
    monkeypatch.setattr(metadata, "parse", lambda data: said)
    content = described(Card("other", NAMES, InputSpec(32, 32, dtype="float32")), "tiny_float")
    with pytest.raises(EdgennError, match="each channel differently"):
        load(stored(tmp_path / "other.tflite", content))


@pytest.mark.parametrize(
    ("mean", "std", "told"),
    [
        (127.5, 127.5, False),  # what its scale and zero point undo
        (0.0, 1.0, False),  # how bytes are said
        (118.0, 60.0, True),  # other values than bytes have
    ],
)
def test_metadata_that_means_other_values_than_bytes_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mean: float, std: float, told: bool
) -> None:
    monkeypatch.setattr(metadata, "parse", lambda data: metadata.Metadata(mean=(mean,), std=(std,)))
    content = described(Card("other", NAMES, InputSpec(32, 32)), "tiny_int8")
    assumed = load(stored(tmp_path / "other.tflite", content)).assumed
    assert any("to other values than bytes have" in sentence for sentence in assumed) == told


def test_damaged_metadata_is_refused(tmp_path: Path) -> None:
    at = WITH_METADATA.index(metadata.IDENTIFIER)
    content = WITH_METADATA[: at - 4] + b"\xff\xff\xff\x7f" + WITH_METADATA[at:]
    with pytest.raises(EdgennError, match="TFLite Metadata is damaged"):
        load(stored(tmp_path / "tiny.tflite", content))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"a\nb\nc", ("a", "b", "c")),
        (b"a\nb\nc\n\n\n", ("a", "b", "c")),  # blank lines at the end
        (b"\xef\xbb\xbfa\r\nb\r\nc\r\n", ("a", "b", "c")),  # Windows: byte order mark, CRLF
        (b"   0  background\n   1  cat, tom\n   2  dog\n", ("background", "cat, tom", "dog")),  # Coral's
        (b"a\tb\n\x1b[2J\n\xe0\xa4\x95\xe2\x80\x8d\n", ("a b", "\ufffd[2J", "\u0915\u200d")),  # no commands
        (b"0:a\n1:b\n2:c\n", ("a", "b", "c")),
        (b"3 blind mice\n2 cats\n1 dog\n", ("3 blind mice", "2 cats", "1 dog")),  # numbers that are no positions
        (b"a\n\nc\n", ("a", "class 1", "c")),
        ("é\n中\nc\n".encode(), ("é", "中", "c")),
        (b"a\nb\n", "has 2 labels and the model 3 scores: if its first class is the background, put a line"),
        (b"a\nb\nc\nd\n", "has 4 labels and the model 3 scores: if the first line is the background"),
        (b"a\n", "has 1 labels and the model 3 scores: give the file"),
        (b"", "has 0 labels"),
        ("é\n".encode("latin-1") * 3, "not UTF-8"),
    ],
)
def test_labels_from_a_file(text: bytes, expected: tuple[str, ...] | str, tmp_path: Path) -> None:
    labels = stored(tmp_path / "names.txt", text)
    if isinstance(expected, tuple):
        assert load(FOLDER / "tiny_int8.tflite", labels).labels == expected
    else:
        with pytest.raises(EdgennError, match=expected):
            load(FOLDER / "tiny_int8.tflite", labels)


def test_a_labels_file_overrides_the_card(tmp_path: Path) -> None:
    path = stored(tmp_path / "tiny.tflite", attach(TINY, OWN))
    assert load(path, stored(tmp_path / "names.txt", b"x\ny\nz\n")).labels == ("x", "y", "z")
    with pytest.raises(EdgennError, match="there is no labels file"):
        load(path, tmp_path / "missing.txt")


@needs_coral
@pytest.mark.parametrize("path", sorted(CORAL.glob("*.tflite")), ids=lambda path: path.stem)
def test_other_people_s_models_load(path: Path) -> None:
    size = 128 if "128" in path.name else 224
    labels = None if "extractor" in path.name else CORAL / "imagenet_labels.txt"
    model: ModelFile = load(path, labels)
    assert model.input == InputSpec(size, size)
    assert model.content == path.read_bytes()
    if labels:
        assert model.labels[:2] == ("background", "tench, Tinca tinca")
        assert len(model.labels) == 1001
