"""Region, rotation and flip: what is seen, from pixels and from encoded pictures."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenn_device.cameras import open_source
from edgenn_device.cameras.view import ROTATIONS, View
from edgenn_device.errors import EdgennError

FLIPS = ("none", "horizontal", "vertical", "both")
# Every pixel says where it was.
PICTURE = np.dstack([np.indices((40, 60))[0], np.indices((40, 60))[1], np.zeros((40, 60))]).astype(np.uint8)


def by_hand(image: np.ndarray, rotate: int, flip: str) -> np.ndarray:
    image = np.rot90(image, -rotate // 90)
    if flip in ("horizontal", "both"):
        image = image[:, ::-1]
    return image[::-1] if flip in ("vertical", "both") else image


@pytest.mark.parametrize("flip", FLIPS)
@pytest.mark.parametrize("rotate", ROTATIONS)
def test_the_picture_is_turned_then_flipped_then_cut(rotate, flip):
    upright = by_hand(PICTURE, rotate, flip)
    assert (View(rotate=rotate, flip=flip).apply(PICTURE) == upright).all()
    height, width = upright.shape[:2]
    seen = View((0.1, 0.5, 0.5, 0.25), rotate, flip).apply(PICTURE)
    assert (seen == upright[height // 2 : 3 * height // 4, width // 10 : 6 * width // 10]).all()


fractions = st.floats(0, 0.9)


@given(fractions, fractions, st.floats(0.01, 1), st.floats(0.01, 1), st.sampled_from(ROTATIONS), st.sampled_from(FLIPS))
def test_a_region_is_never_empty_and_covers_what_it_should(x, y, width, height, rotate, flip):
    view = View((x, y, min(width, 1 - x), min(height, 1 - y)), rotate, flip)
    assert view.apply(PICTURE).size > 0
    rows, columns = view.cover(10, 20)
    seen = view.apply(np.zeros((rows, columns, 3), np.uint8))
    assert seen.shape[0] >= 9  # within the rounding to whole pixels
    assert seen.shape[1] >= 19


def test_an_encoded_picture_is_decoded_at_the_reduction_that_the_region_allows():
    encoded = cv2.imencode(".jpg", np.zeros((800, 1600, 3), np.uint8))[1].tobytes()
    assert View().apply(encoded, (90, 90)).shape == (100, 200, 3)  # an eighth covers it
    assert View((0, 0, 0.5, 0.5)).apply(encoded, (90, 90)).shape == (100, 200, 3)  # half of a quarter
    assert View(rotate=90).apply(encoded, (90, 90)).shape == (200, 100, 3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rotate": 45}, "rotate 45"),
        ({"flip": "sideways"}, "sideways"),
        ({"roi": (0.5, 0, 0.6, 1)}, "not within the picture"),  # beyond the right edge
        ({"roi": (-0.1, 0, 0.5, 1)}, "not within the picture"),  # beyond the left
        ({"roi": (0, 0, 0, 1)}, "not within the picture"),  # empty
        ({"roi": (0, 0, float("nan"), 1)}, "not within the picture"),
    ],
)
def test_what_cannot_be_is_one_line(options, said):
    with pytest.raises(EdgennError, match=said):
        View(**options)


def test_a_source_that_can_do_nothing_itself_leaves_it_all_to_the_reader():
    view = View((0, 0, 0.5, 1), 90, "both")
    assert open_source("synthetic", view=view).view == view
    assert open_source("rtsp://camera/1", view=view).view == view


@pytest.mark.parametrize(
    ("spec", "options", "said"),
    [
        ("rtsp://camera/1", {"exposure": 0.01}, "takes no --exposure"),
        ("http://camera/1", {"width": 640, "height": 480}, "takes no --size"),
        ("0", {"width": 640}, "width and height"),
    ],
)
def test_what_a_source_cannot_do_is_refused(spec, options, said):
    with pytest.raises(EdgennError, match=said):
        open_source(spec, **options)


def test_a_source_of_another_package_comes_by_its_scheme(tmp_path, monkeypatch):
    information = tmp_path / "thermal-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: thermal\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(
        "[edgenn.sources]\nthermal = thermal:Thermal\nbroken = thermal:broken\nnothing = thermal:nothing\n"
    )
    (tmp_path / "thermal.py").write_text(
        "from edgenn_device.cameras.base import Source\n"
        "class Thermal(Source):\n"
        "    def __init__(self, spec): self.name = spec\n"
        "    def open(self): pass\n"
        "    def read(self): return None\n"
        "    def close(self): pass\n"
        "def broken(spec): raise ValueError('no such bus')\n"
        "def nothing(spec): return 7\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    source = open_source("thermal://bus/1", view=View(rotate=90))
    assert (source.name, source.view.rotate) == ("thermal://bus/1", 90)
    assert source.renew().name == source.name
    assert open_source("thermal").name == "thermal"
    with pytest.raises(EdgennError, match="ValueError: no such bus"):
        open_source("broken://")
    with pytest.raises(EdgennError, match="int and no Source"):
        open_source("nothing://")
