"""Whatever is cut off rows and entries, what is left is a beginning of what was written, and goes on from there."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenn.tagging.journal import Journal, Progress, last_entries
from edgenn.tagging.records import UNKNOWN, Tagged


@given(
    st.lists(st.tuples(st.binary(min_size=1, max_size=20), st.booleans()), min_size=1, max_size=12),
    st.integers(0, 400),
    st.integers(0, 200),
)
def test_after_a_cut_at_any_byte_the_same_rows_are_written(tmp_path_factory, rows, cut_entries, lost_rows):
    folder = tmp_path_factory.mktemp("journal")
    place, entries = folder / "rows", folder / "journal"
    record = Tagged("a.jpg", "hat", 1.0)

    def write(journal, start):
        for row, checkpoint in rows[start:]:
            journal.append(row, record, 6)
            if checkpoint:
                journal.checkpoint()

    with Journal(place, entries, b"head\n") as journal:
        write(journal, 0)
    whole = place.read_bytes()
    assert whole == b"head\n" + b"".join(row for row, _ in rows)

    # A kill may tear the last entry; rows behind the last whole entry may be there, torn or missing.
    entries.write_bytes(entries.read_bytes()[:cut_entries])
    certain = last_entries(entries)[1]
    end = max(certain.rows_end, len(whole) - lost_rows)
    place.write_bytes(whole[:end])
    with Journal(place, entries, b"head\n") as journal:
        assert journal.progress == certain
        assert journal.progress.listing_end == 6 * journal.progress.pictures
        write(journal, journal.progress.pictures)
    assert place.read_bytes() == whole
    assert last_entries(entries)[1].pictures == len(rows)


def test_it_counts_what_is_unreadable_and_unknown(tmp_path):
    with Journal(tmp_path / "rows", tmp_path / "journal") as journal:
        for record in (Tagged("a", error="bad"), Tagged("b", UNKNOWN, 0.1), Tagged("c", "hat", 0.9)):
            journal.append(b"row", record, 2)
    assert last_entries(tmp_path / "journal")[1] == Progress(3, 1, 1, 9, 6)


def test_what_a_failure_interrupted_is_not_made_certain(tmp_path):
    with pytest.raises(ZeroDivisionError), Journal(tmp_path / "rows", tmp_path / "journal") as journal:
        journal.append(b"row", Tagged("a"), 2)
        raise ZeroDivisionError
    assert last_entries(tmp_path / "journal")[1] == Progress()
