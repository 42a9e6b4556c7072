"""What is written of a picture is what is read again."""

import csv
import io
import json

from hypothesis import given
from hypothesis import strategies as st

from edgenn.tagging import output, records
from edgenn.tagging.records import Tagged

# Paths are any bytes but null; labels any text.
_PATH = (
    st.binary(min_size=1, max_size=30)
    .filter(lambda p: b"\0" not in p)
    .map(lambda p: p.decode("utf-8", "surrogateescape"))
)
_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
_SCORE = st.floats(0, 1, width=32).map(lambda score: float(f"{score:.7g}"))
_RECORD = st.one_of(
    st.builds(
        Tagged,
        path=_PATH,
        label=_TEXT,
        confidence=_SCORE,
        top=st.lists(st.tuples(_TEXT, _SCORE), min_size=1, max_size=4).map(tuple),
        width=st.integers(1, 9999),
        height=st.integers(1, 9999),
        bytes=st.integers(0, 2**40),
        sha256=st.just("ab" * 32),
        sorted_to=_PATH,
    ),
    st.builds(Tagged, path=_PATH, error=_TEXT.map(lambda text: text or "bad")),
)


@given(st.lists(_RECORD, max_size=5))
def test_csv_and_json_lines_keep_every_record(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("rows")
    for form in ("csv", "jsonl"):
        path = folder / f"rows.{form}"
        encoded = [output.ENCODERS[form](row) for row in rows]
        path.write_bytes(output.header(form) + b"".join(encoded))
        assert [*output.read(path, form)] == rows
        # From the beginning of any row on, as after a kill.
        start = len(output.header(form)) + len(b"".join(encoded[:1]))
        if rows:
            assert [*output.read(path, form, start)] == rows[1:]


def test_the_first_columns_are_path_label_confidence():
    text = (records.header() + records.to_row(Tagged('odd "name",\r\n.jpg', "hat", 0.75))).decode()
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert [*row][:3] == ["path", "label", "confidence"]
    assert (row["path"], row["label"], row["confidence"]) == ('odd "name",\r\n.jpg', "hat", "0.75")


def test_a_path_that_is_no_utf8_is_bytes_in_csv_and_an_escape_in_json():
    record = Tagged(b"caf\xe9.jpg".decode("utf-8", "surrogateescape"))
    assert records.to_row(record).startswith(b"caf\xe9.jpg,")
    assert json.loads(records.to_line(record).decode("ascii"))["path"] == record.path


def test_parquet_keeps_every_record(tmp_path):
    rows = [
        Tagged("a.jpg", "hat", 0.75, (("hat", 0.75), ("shoe", 0.25)), 4, 3, 99, "ab"),
        Tagged("b.jpg", error="bad"),
    ]
    output.write_parquet(iter(rows), tmp_path / "tags.parquet")
    assert [*output.read(tmp_path / "tags.parquet", "parquet")] == rows


def test_a_path_that_is_no_utf8_is_an_escape_in_parquet(tmp_path):
    record = Tagged(b"caf\xe9.jpg".decode("utf-8", "surrogateescape"))
    output.write_parquet(iter([record]), tmp_path / "tags.parquet")
    (found,) = output.read(tmp_path / "tags.parquet", "parquet")
    assert found.path == r"caf\xe9.jpg"
