"""The page shows what is to be looked at, and corrections become folders."""

import json
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from edgenn.tagging import corrections, review
from edgenn.tagging.records import Tagged
from edgenn_device import model_file
from edgenn_device.errors import EdgennError
from tools import chromium


def record(number, label, confidence):
    return Tagged(f"{number}.jpg", label, confidence, ((label, confidence),), 4, 3, 9, "ab")


def test_the_least_certain_come_first_and_samples_hold_their_order():
    records = [record(number, "ab"[number % 2], (number * 37 % 1000) / 1000) for number in range(1000)]
    chosen = review.choose(iter([*records, Tagged("bad.jpg", error="bad")]))
    assert [one.confidence for one in chosen.uncertain] == [number / 1000 for number in range(review.MOST_UNCERTAIN)]
    assert chosen.counts == {"a": 500, "b": 500}
    assert (chosen.unreadable, [one.path for one in chosen.errors]) == (1, ["bad.jpg"])
    for label, sheet in chosen.sheets.items():
        numbers = [int(one.path.removesuffix(".jpg")) for one in sheet]
        assert numbers == sorted(set(numbers))
        assert all(one.label == label for one in sheet)
        assert numbers[-1] > 500  # of all, not of the first ones
    assert chosen == review.choose(iter([*records, Tagged("bad.jpg", error="bad")]))


def test_a_model_of_many_labels_gets_short_sheets():
    chosen = review.choose(record(number, f"label {number % 1000}", 0.5) for number in range(20_000))
    assert sum(len(sheet) for sheet in chosen.sheets.values()) <= 1000


def test_the_page_stands_alone_and_shows_hostile_names_as_text(model, tiny, tmp_path):
    hostile = tmp_path / '<script>alert("x")</script> \'&.png'
    hostile.parent.mkdir(parents=True, exist_ok=True)
    content = (tiny / "photos" / "circle" / "00.png").read_bytes()
    name = str(hostile).replace("</script>", "<_script>")
    Path(name).write_bytes(content)
    page = tmp_path / "report.html"
    records = [
        Tagged(name, "circle", 0.4, (("circle", 0.4), ("<b>", 0.3)), 32, 32, 9, "ab" * 32),
        Tagged("gone.png", "circle", 0.5, (("circle", 0.5),), 32, 32, 9, "cd" * 32),  # removed since
        Tagged("<i>.png", error="<u>bad</u>"),
    ]
    review.write_page(page, records, model_file.load(model))
    html = page.read_text()
    assert not re.search(r"<(script>alert|b>|i>\.png|u>bad)", html)
    assert not re.search(r"""(src|href)=["'](?!data:)""", html)
    assert html.count("<li data-path") == 2  # once as uncertain, once on its sheet
    assert "unreadable" in html.lower()


@pytest.mark.skipif(chromium.FOUND is None, reason="needs a browser: apt-get install chromium")
def test_what_is_clicked_and_typed_there_is_what_is_downloaded(model, tiny, tmp_path):
    paths = [str(tiny / "photos" / "circle" / f"{number:02d}.png") for number in range(4)]
    top = (("circle", 0.6), ("square", 0.3))
    records = [Tagged(path, "circle", 0.6, top, 32, 32, 9, f"{n:064d}") for n, path in enumerate(paths)]
    records[3] = Tagged(paths[3], "unknown", 0.4, (("circle", 0.4), ("cross", 0.3)), 32, 32, 9, f"{3:064d}")
    page = tmp_path / "report.html"
    review.write_page(page, records, model_file.load(model))
    clicks = """<script>
      const li = path => document.querySelector(`li[data-path="${path}"]`);
      const [right, typed, guessed, unknown] = PATHS.map(li);
      const type = (li, text) => {
        li.querySelector("input").value = text;
        li.querySelector("input").dispatchEvent(new Event("change"));
      };
      right.querySelector(".put-right button").click();
      type(typed, " new </label> ");
      guessed.querySelector(".other").click();
      type(unknown, "cross");
      type(unknown, "");  // and thought better of it
      URL.createObjectURL = blob => {
        blob.text().then(text => document.body.dataset.saved = encodeURIComponent(text));
        return "#";
      };
      document.getElementById("download").click();
    </script>""".replace("PATHS", json.dumps(paths))
    page.write_text(page.read_text() + clicks)
    with chromium.Chromium(tmp_path / "browser") as browser:
        browser.open(page.as_uri())
        browser.until("document.body.dataset.saved")
        saved = json.loads(unquote(browser.run("document.body.dataset.saved")))
        assert "2 put right, 1 confirmed" in browser.text()
    assert [(entry["path"], entry["was"], entry["label"]) for entry in saved["corrections"]] == [
        (paths[0], "circle", "circle"),
        (paths[1], "circle", "new </label>"),
        (paths[2], "circle", "square"),
    ]
    for entry in saved["corrections"]:
        assert entry["sha256"] == records[paths.index(entry["path"])].sha256
    (tmp_path / "corrections.json").write_text(json.dumps(saved))
    assert len(corrections._read(tmp_path / "corrections.json")) == 3


@pytest.fixture
def put_right(tiny, tmp_path):
    """corrections.json for two pictures of the same name."""
    import hashlib

    entries = []
    for shape in ("circle", "square"):
        path = tiny / "photos" / shape / "00.png"
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        entries.append({"path": str(path), "sha256": digest, "was": "circle", "label": "cross"})
    place = tmp_path / "corrections.json"
    place.write_text(json.dumps({"schema": 1, "model": "m", "corrections": entries}))
    return place


def test_corrections_become_folders_once(put_right, tiny, tmp_path):
    applied = corrections.apply(put_right, tmp_path / "next")
    assert (applied.copied, applied.present, applied.left_out) == (2, 0, ())
    assert sorted(path.name for path in (tmp_path / "next" / "cross").iterdir()) == ["00-2.png", "00.png"]
    again = corrections.apply(put_right, tmp_path / "next")
    assert (again.copied, again.present) == (0, 2)
    assert len([*(tmp_path / "next" / "cross").iterdir()]) == 2


def test_a_picture_that_has_changed_is_left_out_and_a_label_is_no_path(put_right, tmp_path):
    found = json.loads(put_right.read_text())
    found["corrections"][0]["sha256"] = "00" * 32
    found["corrections"][1]["label"] = "../../escape"
    found["corrections"].append({"path": "/nowhere.png", "sha256": "00", "was": "a", "label": "b"})
    put_right.write_text(json.dumps(found))
    applied = corrections.apply(put_right, tmp_path / "deep" / "next")
    assert applied.copied == 1
    assert [reason.split(":")[0] for _, reason in applied.left_out] == [
        "has changed since it was tagged",
        "does not exist",
    ]
    (folder,) = (tmp_path / "deep" / "next").iterdir()
    assert "escape" in folder.name


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        "[]",  # another document
        '{"schema": 1}',  # nothing in it
        '{"schema": 2, "corrections": []}',  # of a later edgenn
        '{"schema": 1, "corrections": [{"path": "a"}]}',  # half a correction
        '{"schema": 1, "corrections": [{"path": "a", "sha256": "b", "label": ""}]}',  # no label
    ],
)
def test_what_is_no_corrections_is_refused_in_a_line(tmp_path, text):
    (tmp_path / "corrections.json").write_text(text)
    with pytest.raises(EdgennError):
        corrections.apply(tmp_path / "corrections.json", tmp_path / "next")
    assert not (tmp_path / "next").exists()
