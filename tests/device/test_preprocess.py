"""Pictures to pixels to tensors, with Pillow as an independent reader of the same files."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from edgenn_device.card import InputSpec
from edgenn_device.errors import EdgennError
from edgenn_device.picture_header import MAXIMUM_PIXELS, read_header
from edgenn_device.preprocess import PAD_GREY, decode, read, to_bytes, to_tensor


def smooth(height, width, channels):
    """A picture without edges, so that two JPEG decoders differ by rounding only, and with no symmetry."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [np.sin(x / (17 + 3 * i) + i) * 60 + np.cos(y / (11 + i)) * 60 + 128 for i in range(channels)]
    return np.stack(planes, -1).astype(np.uint8)


RGB = Image.fromarray(smooth(40, 60, 3))
RGBA = Image.fromarray(smooth(40, 60, 4))
GREY = RGB.convert("L")
CMYK = Image.frombytes("CMYK", (60, 40), smooth(40, 60, 4).tobytes())


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def by_pillow(data):
    """The same picture as BGR over white, read by Pillow."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))[..., ::-1]


def orientation(value):
    exif = Image.Exif()
    exif[274] = value
    return exif


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(pixels, bits, colour, *chunks):
    """A PNG from rows that are packed already, with chunks that no encoder at hand writes."""
    height, row = pixels.shape[:2]
    width = row * 8 // bits // {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    lines = b"".join(b"\0" + line.tobytes() for line in pixels)
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def without_marker_of_adobe(data):
    start = data.index(b"\xff\xee")
    (length,) = struct.unpack_from(">H", data, start + 2)
    return data[:start] + data[start + 2 + length :]


# name, file, largest difference to Pillow: lossless formats agree but for the rounding of transparency; JPEG decoders
# and CMYK conversions round differently.
PICTURES = [
    ("jpeg", encoded(RGB, "JPEG", quality=95), 3),
    ("progressive jpeg", encoded(RGB, "JPEG", quality=95, progressive=True), 3),
    ("jpeg with halved colours", encoded(RGB, "JPEG", quality=95, subsampling=2), 4),
    ("grey jpeg", encoded(GREY, "JPEG", quality=95), 1),
    ("cmyk jpeg, inverted as Adobe does", encoded(CMYK, "JPEG", quality=95), 4),
    ("cmyk jpeg without the marker of Adobe", without_marker_of_adobe(encoded(CMYK, "JPEG", quality=95)), 4),
    ("jpeg from a camera, padded with zeros", encoded(RGB, "JPEG", quality=95) + bytes(500), 3),
    ("png", encoded(RGB, "PNG"), 0),
    ("grey png", encoded(GREY, "PNG"), 0),
    ("png of 1 bit", encoded(RGB.convert("1"), "PNG"), 0),
    ("png with palette", encoded(RGB.quantize(20), "PNG"), 0),
    ("png with palette and one transparent entry", encoded(RGB.quantize(20), "PNG", transparency=3), 0),
    (
        "png with palette and half transparent entries",
        encoded(RGB.quantize(20), "PNG", transparency=bytes(range(0, 200, 10))),
        1,
    ),
    ("png with alpha", encoded(RGBA, "PNG"), 1),
    ("grey png with alpha", encoded(RGBA.convert("LA"), "PNG"), 1),
    ("png with one transparent colour", encoded(RGB, "PNG", transparency=RGB.getpixel((5, 5))), 0),
    ("grey png with one transparent value", encoded(GREY, "PNG", transparency=GREY.getpixel((5, 5))), 0),
    ("lossless webp", encoded(RGB, "WEBP", lossless=True), 0),
    ("lossy webp", encoded(RGB, "WEBP", quality=95), 3),
    ("webp with alpha", encoded(RGBA, "WEBP", lossless=True, exact=True), 1),
    ("lossy webp with alpha", encoded(RGBA, "WEBP", quality=95), 4),
    ("bmp", encoded(RGB, "BMP"), 0),
    ("grey bmp", encoded(GREY, "BMP"), 0),
    ("bmp with palette", encoded(RGB.quantize(20), "BMP"), 0),
    ("bmp with a fourth byte that means nothing", encoded(RGBA, "BMP"), 0),
    ("tiff", encoded(RGB, "TIFF"), 0),
    ("tiff, lzw", encoded(RGB, "TIFF", compression="tiff_lzw"), 0),
    ("tiff, jpeg", encoded(RGB, "TIFF", compression="jpeg"), 3),
    ("grey tiff", encoded(GREY, "TIFF"), 0),
    ("grey tiff, white is zero", encoded(GREY, "TIFF", tiffinfo={262: 0}), 0),
    ("tiff of 1 bit", encoded(RGB.convert("1"), "TIFF"), 0),
    ("tiff with palette", encoded(RGB.quantize(20), "TIFF"), 0),
    ("tiff with alpha", encoded(RGBA, "TIFF"), 2),
    ("cmyk tiff", encoded(CMYK, "TIFF"), 4),
]
WHOLE = [(name, data) for name, data, _ in PICTURES]


@pytest.mark.parametrize(("name", "data", "tolerance"), PICTURES, ids=[row[0] for row in PICTURES])
def test_every_kind_of_picture_is_read_as_pillow_reads_it(name, data, tolerance):
    image = decode(data)
    assert image.shape == (40, 60, 3)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert np.abs(image.astype(int) - by_pillow(data)).max() <= tolerance


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize(
    ("picture", "kind", "options"),
    [
        (RGB, "JPEG", {"quality": 95}),
        (RGB, "PNG", {}),
        (RGBA, "PNG", {}),  # read through another path than opaque ones
        (RGB, "WEBP", {"lossless": True}),
        (RGBA, "WEBP", {"lossless": True, "exact": True}),
        (RGB, "TIFF", {}),  # turned by the decoder itself
    ],
)
def test_exif_orientation_is_applied(picture, kind, options, value):
    data = encoded(picture, kind, exif=orientation(value), **options)
    image, reference = decode(data), by_pillow(data)
    assert image.shape == reference.shape == ((60, 40, 3) if value >= 5 else (40, 60, 3))
    assert image.flags.c_contiguous
    assert np.abs(image.astype(int) - reference).max() <= 3
    header = read_header(data)
    assert (header.height, header.width) == (image.shape[1::-1] if header.turned else image.shape[:2])


@pytest.mark.parametrize("value", range(1, 9))
def test_exif_orientation_of_16_bit_tiff_is_applied(value):
    wide = Image.fromarray(smooth(40, 60, 1)[..., 0].astype(np.uint16) * 257)
    narrow = encoded(Image.fromarray(smooth(40, 60, 1)[..., 0]), "TIFF", exif=orientation(value))
    assert np.array_equal(decode(encoded(wide, "TIFF", exif=orientation(value))), by_pillow(narrow))
    header = read_header(encoded(wide, "TIFF", exif=orientation(value)))
    assert (header.height, header.width) == by_pillow(narrow).shape[:2]


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",  # nothing in it
        b"Exif\0\0II*\0\xff\xff\xff\xff",  # a directory far beyond the end
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x09\0\0",  # orientation 9
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x00\0\x06\0\0",  # orientation without a value
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\xff\xff\xff\xff\0\0\0\x08",  # four billion orientations
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x01\0\x06\0\0",  # orientation as text
    ],
)
def test_nonsense_in_exif_is_ignored(exif):
    data = encoded(RGB, "JPEG", exif=exif)
    assert decode(data).shape == (40, 60, 3)


@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"], ids=["as specified", "as some programs write it"])
def test_exif_of_webp_with_and_without_prefix(prefix):
    data = encoded(RGB, "WEBP", lossless=True, exif=orientation(6))
    start = data.index(b"EXIF")
    (length,) = struct.unpack_from("<I", data, start + 4)
    body = prefix + data[start + 8 : start + 8 + length].removeprefix(b"Exif\0\0")
    data = data[:start] + b"EXIF" + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)
    data = data[:4] + struct.pack("<I", len(data) - 8) + data[8:]
    assert decode(data).shape == (60, 40, 3)


def test_16_bits_are_rounded_to_8():
    values = np.array([0, 1, 128, 129, 256, 257, 385, 386, 32767, 65406, 65407, 65535], np.uint16)
    expected = np.round(values / 257).astype(np.uint8)
    for extension in (".png", ".tif"):
        grey = cv2.imencode(extension, values[None])[1].tobytes()
        assert np.array_equal(decode(grey)[0, :, 1], expected)
        colour = cv2.imencode(extension, np.dstack([values[None], values[None] // 2, values[None] // 4]))[1].tobytes()
        assert np.array_equal(decode(colour)[0, :, 0], expected)
        assert np.array_equal(decode(colour)[0, :, 1], np.round(values // 2 / 257))


def test_16_bits_with_alpha_are_laid_over_white():
    image = np.random.default_rng(1).integers(0, 65536, (5, 7, 4)).astype(np.uint16)
    image[0, :, 3] = 0, 65535, 1, 65534, 32767, 32768, 257
    opacity = image[..., 3:] / 65535
    expected = (image[..., :3] * opacity + 65535 * (1 - opacity)) / 257
    assert np.abs(decode(cv2.imencode(".png", image)[1].tobytes()) - expected).max() <= 0.51
    assert (decode(cv2.imencode(".png", image)[1].tobytes())[0, 0] == 255).all()


def test_one_transparent_colour_of_16_bits_becomes_white():
    pixels = np.array([[1000, 2000, 3000, 500, 600, 700]], ">u2").view(np.uint8)
    image = decode(png(pixels, 16, 2, chunk(b"tRNS", struct.pack(">HHH", 500, 600, 700))))
    assert image.tolist() == [[[12, 8, 4], [255, 255, 255]]]


@pytest.mark.parametrize(
    ("bits", "row", "value", "expected"),
    [
        (1, 0b01000000, 1, [0, 255, 0, 0, 0, 0, 0, 0]),
        (1, 0b01000000, 0, [255] * 8),
        (2, 0b00011011, 1, [0, 255, 170, 255]),
        (4, 0x5A, 10, [85, 255]),
    ],
)
def test_transparent_value_of_grey_with_few_bits(bits, row, value, expected):
    data = png(np.array([[row]], np.uint8), bits, 0, chunk(b"tRNS", struct.pack(">H", value)))
    assert decode(data)[0, :, 0].tolist() == expected


def test_transparent_value_of_16_bit_grey():
    data = png(np.array([[1000, 1001]], ">u2").view(np.uint8), 16, 0, chunk(b"tRNS", struct.pack(">H", 1000)))
    assert decode(data)[0, :, 0].tolist() == [255, 4]


@pytest.mark.parametrize(
    ("header_size", "compression", "mask", "transparent"),
    [
        (40, 0, 0, False),  # plain: the fourth byte is unused
        (40, 3, 0, False),  # BITFIELDS: masks for three colours only
        (56, 3, 0, False),  # a mask for alpha, which is empty
        (56, 3, 0xFF000000, True),
        (108, 0, 0xFF000000, False),  # not BITFIELDS: the mask is to be ignored
        (108, 3, 0xFF000000, True),
        (124, 3, 0xFF000000, True),
    ],
)
def test_bmp_alpha_counts_only_where_a_mask_says_so(header_size, compression, mask, transparent):
    pixels = np.array([[[10, 20, 30, 0], [10, 20, 30, 255]]], np.uint8).tobytes()
    information = struct.pack("<IiiHHIIiiII", header_size, 2, 1, 1, 32, compression, len(pixels), 0, 0, 0, 0)
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, mask)[: 12 if header_size == 40 else 16]
    information = (information + masks).ljust(header_size, b"\0")
    start = 14 + len(information)
    data = b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + information + pixels
    first = [255, 255, 255] if transparent else [10, 20, 30]
    assert decode(data).tolist() == [[first, [10, 20, 30]]]


# --- decoding no more than is needed -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "cover", "decoded"),
    [
        ((533, 400), (224, 224), (533, 400)),  # half would be 200 wide
        ((533, 400), (200, 200), (267, 200)),  # just enough; libjpeg rounds up
        ((533, 400), (96, 96), (134, 100)),  # a quarter
        ((533, 400), (50, 50), (67, 50)),  # an eighth
        ((533, 400), (134, 100), (134, 100)),  # both sides exactly
        ((533, 400), (135, 100), (267, 200)),  # one row short
        ((533, 400), (600, 10), (533, 400)),  # never enlarged
        ((8, 8), (1, 1), (1, 1)),
        ((1, 1), (1, 1), (1, 1)),  # a side of one pixel stays one
    ],
)
def test_cover_decides_the_reduction(size, cover, decoded):
    data = cv2.imencode(".jpg", smooth(*size, 3))[1].tobytes()
    assert decode(data, cover).shape == (*decoded, 3)


def test_cover_is_of_the_upright_picture():
    data = encoded(Image.fromarray(smooth(160, 320, 3)), "JPEG", exif=orientation(6))
    assert decode(data).shape == (320, 160, 3)
    assert decode(data, cover=(160, 80)).shape == (160, 80, 3)
    assert decode(data, cover=(80, 160)).shape == (320, 160, 3)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 300), st.integers(1, 300), st.sampled_from([1, 3, 6]))
@settings(max_examples=60, deadline=None)
def test_reduction_never_falls_below_cover_or_whole_picture(height, width, cover_height, cover_width, turn):
    exif = orientation(turn)
    data = encoded(Image.fromarray(np.zeros((height, width, 3), np.uint8)), "JPEG", exif=exif)
    whole = decode(data).shape
    found = decode(data, (cover_height, cover_width)).shape
    assert found[0] >= min(cover_height, whole[0])
    assert found[1] >= min(cover_width, whole[1])
    assert found == whole or (found[0] >= cover_height and found[1] >= cover_width)


def test_reduced_picture_shows_the_same():
    data = encoded(Image.fromarray(smooth(320, 480, 3)), "JPEG", quality=95)
    reduced = decode(data, cover=(80, 120)).astype(int)
    assert reduced.shape == (80, 120, 3)
    assert np.abs(reduced - cv2.resize(decode(data), (120, 80), interpolation=cv2.INTER_AREA)).max() <= 4


# --- files that are not whole ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "data"), WHOLE, ids=[name for name, _ in WHOLE])
def test_truncated_anywhere_is_refused(name, data):
    end = len(data.rstrip(b"\0")) if "padded" in name else len(data)
    if "tiff" in name:
        end -= 1  # a padding byte may follow the last strip
    for length in sorted({*range(0, end, max(1, end // 97)), end - 1, end - 2}):
        with pytest.raises(EdgennError) as caught:
            decode(data[:length])
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "data"), WHOLE, ids=[name for name, _ in WHOLE])
def test_a_file_cut_in_half_is_called_truncated_before_it_is_decoded(name, data):
    with pytest.raises(EdgennError, match="truncated"):
        read_header(data[: 40 + len(data.rstrip(b"\0")) // 4])


@pytest.mark.parametrize("tag", [256, 257, 258, 259, 262, 273, 277, 278, 279])
def test_tiff_with_a_value_missing_gives_a_picture_or_an_error(tag):
    data = bytearray(encoded(RGB, "TIFF"))
    entry = next(at for at in range(10, 200, 12) if struct.unpack_from("<H", data, at)[0] == tag)
    data[entry + 4 : entry + 8] = bytes(4)
    try:
        assert decode(bytes(data)).shape == (40, 60, 3)
    except EdgennError:
        pass


@pytest.mark.parametrize(("name", "data"), WHOLE, ids=[name for name, _ in WHOLE])
def test_bytes_after_the_end_are_no_fault(name, data):
    assert np.array_equal(decode(data + b"\0\0\xff\xd8 and more"), decode(data))


def test_jpeg_cut_behind_its_thumbnail_is_truncated():
    """The thumbnail in the EXIF block has an end marker and a size of its own; neither is the picture's."""
    thumbnail = encoded(RGB.resize((16, 16)), "JPEG")
    block = b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0" + thumbnail
    data = encoded(RGB, "JPEG", exif=block)
    assert (read_header(data).height, read_header(data).width) == (40, 60)
    for length in (data.index(thumbnail) + len(thumbnail), len(data) - 2, len(data) // 2):
        with pytest.raises(EdgennError, match="truncated JPEG"):
            decode(data[:length])


def test_jpeg_with_restart_markers_and_fill_bytes_is_whole():
    data = cv2.imencode(".jpg", smooth(40, 60, 3), [cv2.IMWRITE_JPEG_RST_INTERVAL, 1])[1].tobytes()
    assert b"\xff\xd0" in data
    filled = data[:2] + b"\xff\xff\xff" + data[2:]  # T.81 B.1.1.2: any number of fill bytes before a marker
    assert np.array_equal(decode(filled), decode(data))


def test_frame_of_a_usb_camera_without_huffman_tables_is_read():
    """MJPEG leaves the tables out, because they are always those of T.81, K.3."""
    whole = cv2.imencode(".jpg", smooth(40, 60, 3))[1].tobytes()
    data = whole
    while (start := data.find(b"\xff\xc4")) >= 0:
        data = data[:start] + data[start + 2 + struct.unpack_from(">H", data, start + 2)[0] :]
    assert len(data) < len(whole) - 400
    assert np.array_equal(decode(data), decode(whole))
    assert decode(data, cover=(20, 30)).shape == (20, 30, 3)


@pytest.mark.parametrize("place", [16, -30], ids=["header", "pixels"])
def test_png_with_a_wrong_bit_is_refused(place):
    data = bytearray(encoded(RGB, "PNG"))
    data[place] ^= 1
    with pytest.raises(EdgennError, match="damaged PNG"):
        decode(bytes(data))


def test_png_whose_pixels_end_early_is_refused():
    """Whole as a file, with right checksums: only the decoder can know."""
    data = png(np.zeros((40, 180), np.uint8), 8, 2)
    header = data[:33].replace(struct.pack(">II", 60, 40), struct.pack(">II", 60, 80))
    taller = data[:8] + chunk(b"IHDR", header[16:29]) + data[33:]
    with pytest.raises(EdgennError, match="damaged PNG"):
        decode(taller)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"\xff", "not a picture"),
        (b"hello, I am a text", "not a picture"),
        (bytes(1000), "not a picture"),
        (encoded(RGB, "GIF"), "GIF is not read"),
        (b"\0\0\0\x1cftypheic\0\0\0\0mif1heic", "HEIC"),
        (encoded(RGB, "WEBP", save_all=True, append_images=[GREY.convert("RGB")]), "animated WebP"),
        (encoded(RGBA.convert("LA"), "TIFF"), "grey TIFF with transparency"),
        (encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), "TIFF of 32 bits"),
        (encoded(RGB, "JPEG").replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c"), "JPEG of 12 bits"),
        (b"\xff\xd8\xff\xd9", "damaged JPEG"),
        (encoded(RGB, "JPEG").replace(struct.pack(">HH", 40, 60), bytes(4)), "damaged JPEG"),
        (b"II*\0\x08\0\0\0\0\0", "damaged TIFF"),
        (b"RIFF\x04\0\0\0WEBP", "damaged WebP"),
    ],
)
def test_what_is_no_picture_is_refused_with_a_reason(data, reason):
    with pytest.raises(EdgennError, match=reason):
        decode(data)


def huge_tiff():
    data = bytearray(encoded(RGB, "TIFF"))
    for tag, value in ((256, 60000), (257, 60000)):
        entry = data.index(struct.pack("<HH", tag, 4))
        data[entry + 8 : entry + 12] = struct.pack("<I", value)
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 50000, 50000, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(bytes(100)))
        + chunk(b"IEND", b""),
        encoded(RGB, "JPEG").replace(struct.pack(">HH", 40, 60), struct.pack(">HH", 60000, 60000)),
        b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 60000, -60000, 1, 8, 1, *[0] * 5),
        encoded(RGB, "WEBP").replace(struct.pack("<HH", 60, 40), struct.pack("<HH", 16000, 16000)),
        huge_tiff(),
    ],
    ids=["png", "jpeg", "bmp", "webp", "tiff"],
)
def test_decompression_bombs_are_refused_by_their_header(data):
    with pytest.raises(EdgennError, match="pixels: at most 134 million"):
        decode(data)


def test_the_largest_picture_allowed_is_a_phone_s_108_megapixels_and_more():
    assert 108e6 < MAXIMUM_PIXELS < 2e8


@given(st.sampled_from(WHOLE), st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4))
@settings(max_examples=300, deadline=None)
def test_changed_bytes_give_a_picture_or_an_error_and_nothing_else(picture, changes):
    data = bytearray(picture[1])
    for place, value in changes:
        data[int(place * len(data))] = value
    try:
        image = decode(bytes(data))
    except EdgennError:
        pass
    else:
        assert image.dtype == np.uint8
        assert image.ndim == 3
        assert image.shape[2] == 3
        assert image.flags.c_contiguous


def test_bad_files_leave_nothing_on_stderr(capfd):
    for _, data in WHOLE:
        with pytest.raises(EdgennError):
            decode(data[: len(data) // 2])
    # Damage that only the decoder meets, and that OpenCV remarks on.
    tiff = bytearray(cv2.imencode(".tif", smooth(400, 300, 3))[1].tobytes())
    tiff[len(tiff) // 2 : len(tiff) // 2 + 40] = bytes(40)
    try:
        decode(bytes(tiff))
    except EdgennError:
        pass
    captured = capfd.readouterr()
    assert captured.err == captured.out == ""


def test_read_names_the_path(tmp_path):
    good = tmp_path / "gut ☺.JPG"
    good.write_bytes(encoded(RGB, "JPEG"))
    assert np.array_equal(read(good), decode(good.read_bytes()))
    assert read(str(good), cover=(20, 30)).shape == (20, 30, 3)
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(good.read_bytes()[:300])
    for path, reason in ((bad, "truncated"), (tmp_path, "folder"), (tmp_path / "none", "does not exist")):
        with pytest.raises(EdgennError, match=reason) as caught:
            read(path)
        assert str(caught.value).startswith(str(path))
    with pytest.raises(EdgennError, match="cannot be read"):
        read("a\0b")


# --- to the tensor -----------------------------------------------------------------------------------------------

sides = st.integers(1, 70)
specs = st.builds(
    lambda height, width, colour, resize: InputSpec(height, width, 1 if colour == "grey" else 3, colour, resize),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from(["rgb", "bgr", "grey"]),
    st.sampled_from(["stretch", "crop", "pad"]),
)


@st.composite
def pictures(draw):
    shape = (draw(sides), draw(sides), *draw(st.sampled_from([(), (1,), (3,), (4,)])))
    picture = np.random.default_rng(draw(st.integers(0, 9))).integers(0, 256, shape).astype(np.uint8)
    return {
        "dense": picture,
        "upside down": picture[::-1],
        "mirrored": picture[:, ::-1],
        "columns first": np.asfortranarray(picture),
        "window": np.pad(picture, [(1, 2), (3, 1)] + [(0, 0)] * (picture.ndim - 2))[1:-2, 3:-1],
    }[draw(st.sampled_from(["dense", "upside down", "mirrored", "columns first", "window"]))]


@given(pictures(), specs)
@settings(max_examples=200, deadline=None)
def test_to_bytes_gives_the_spec_s_shape_and_fills_out(picture, spec):
    before = picture.copy()
    fresh = to_bytes(picture, spec)
    assert fresh.shape == spec.shape
    assert fresh.dtype == np.uint8
    assert fresh.flags.c_contiguous
    batch = np.full((3, *spec.shape), 77, np.uint8)
    assert to_bytes(picture, spec, out=batch[1]) is not None
    assert np.array_equal(batch[1], fresh)
    assert (batch[[0, 2]] == 77).all()
    assert np.array_equal(picture, before)
    assert not np.shares_memory(fresh, picture)
    assert np.array_equal(to_bytes(np.ascontiguousarray(picture), spec), fresh)


@given(pictures(), specs, st.floats(-200, 200), st.floats(0.5, 200))
@settings(max_examples=100, deadline=None)
def test_the_three_dtypes_say_the_same(picture, spec, mean, std):
    byte = to_bytes(picture, spec)

    def tensor(dtype):
        wanted = InputSpec(*spec.shape, spec.colour, spec.resize, dtype, mean, std)
        fresh = to_tensor(picture, wanted)
        out = np.empty((1, *spec.shape), dtype)
        assert to_tensor(picture, wanted, out=out) is out
        assert np.array_equal(out, fresh)
        assert fresh.shape == (1, *spec.shape)
        assert fresh.dtype == dtype
        assert fresh.flags.c_contiguous
        return fresh[0]

    assert np.array_equal(tensor("uint8"), byte)
    assert np.array_equal(tensor("int8").astype(int), byte.astype(int) - 128)
    expected = (byte.astype(np.float64) - mean) / std
    assert np.allclose(tensor("float32"), expected, rtol=1e-5, atol=1e-4)


@given(sides, sides, specs, st.integers(0, 255))
@settings(max_examples=100, deadline=None)
def test_a_plain_picture_stays_plain(height, width, spec, value):
    tensor = to_bytes(np.full((height, width, 3), value, np.uint8), spec)
    if spec.resize == "pad":
        assert set(np.unique(tensor)) <= {value, PAD_GREY}
        assert (tensor == value).any()
    else:
        assert (tensor == value).all()


@given(pictures(), specs)
@settings(max_examples=100, deadline=None)
def test_colours_are_the_same_bytes_in_another_order(picture, spec):
    def in_colour(colour):
        return to_bytes(picture, InputSpec(spec.height, spec.width, 1 if colour == "grey" else 3, colour, spec.resize))

    assert np.array_equal(in_colour("rgb"), in_colour("bgr")[..., ::-1])
    if spec.resize != "pad":
        assert np.array_equal(in_colour("grey")[..., 0], cv2.cvtColor(in_colour("bgr"), cv2.COLOR_BGR2GRAY))
    if picture.ndim == 3 and picture.shape[2] == 4:
        assert np.array_equal(to_bytes(picture, spec), to_bytes(picture[..., :3], spec))
    if picture.ndim == 2:
        assert np.array_equal(to_bytes(picture, spec), to_bytes(picture[..., None], spec))


@pytest.mark.parametrize(
    ("picture", "tensor", "rows", "columns"),
    [
        # picture and tensor as (height, width); the window taken from the picture
        ((100, 200), (50, 50), (0, 100), (50, 150)),  # wide: the middle
        ((200, 100), (50, 50), (50, 150), (0, 100)),  # tall: the middle
        ((100, 100), (50, 50), (0, 100), (0, 100)),  # the same aspect: all of it
        ((100, 201), (50, 50), (0, 100), (50, 150)),  # the odd column falls to the right
        ((101, 200), (50, 100), (0, 100), (0, 200)),  # the odd row falls to the bottom
        ((10, 25), (2, 3), (0, 10), (5, 20)),  # 15 wide
        ((3, 50), (2, 7), (0, 3), (19, 30)),  # 10.5 wide is rounded up
        ((1, 100), (100, 1), (0, 1), (49, 50)),  # at least one pixel
        ((20, 20), (40, 60), (3, 16), (0, 20)),  # growing: 13.3 high
    ],
)
def test_crop_takes_the_largest_centred_window(picture, tensor, rows, columns):
    image = np.random.default_rng(0).integers(0, 256, (*picture, 3)).astype(np.uint8)
    window = image[slice(*rows), slice(*columns)]
    shrinks = window.shape[0] >= tensor[0] and window.shape[1] >= tensor[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    expected = cv2.resize(window, tensor[::-1], interpolation=method)
    assert np.array_equal(to_bytes(image, InputSpec(*tensor, colour="bgr", resize="crop")), expected)


@pytest.mark.parametrize(
    ("picture", "tensor", "rows", "columns"),
    [
        # picture and tensor as (height, width); where the picture stands in the tensor
        ((100, 200), (50, 50), (12, 37), (0, 50)),  # wide: 25 rows, the odd row of border at the bottom
        ((200, 100), (50, 50), (0, 50), (12, 37)),
        ((100, 100), (50, 50), (0, 50), (0, 50)),  # no border
        ((1, 1000), (50, 50), (24, 25), (0, 50)),  # at least one pixel
        ((3, 4), (30, 30), (3, 26), (0, 30)),  # growing: 22.5 is rounded up to 23
    ],
)
@pytest.mark.parametrize("colour", ["rgb", "bgr", "grey"])
def test_pad_keeps_the_whole_picture(picture, tensor, rows, columns, colour):
    channels = 1 if colour == "grey" else 3
    image = np.random.default_rng(0).integers(0, 256, (*picture, 3)).astype(np.uint8)
    found = to_bytes(image, InputSpec(*tensor, channels, colour, resize="pad"))
    inner = found[slice(*rows), slice(*columns)]
    assert np.array_equal(inner, to_bytes(image, InputSpec(*inner.shape, colour)))
    border = np.ones(tensor, bool)
    border[slice(*rows), slice(*columns)] = False
    assert (found[border] == PAD_GREY).all()


def test_shrinking_averages_and_growing_interpolates():
    checks = np.kron([[0, 255], [255, 0]], np.ones((8, 8))).astype(np.uint8)
    fine = np.tile(np.array([[0, 200], [200, 0]], np.uint8), (8, 8))
    assert (to_bytes(fine, InputSpec(4, 4, 1, "grey")) == 100).all()  # every pixel counts: no aliasing
    # Odd sides are not halved first.
    corners = np.tile(np.array([[90, 0, 0], [0, 0, 0], [0, 0, 0]], np.uint8), (3, 3))
    assert (to_bytes(corners, InputSpec(3, 3, 1, "grey")) == 10).all()
    grown = to_bytes(checks, InputSpec(64, 8, 1, "grey"))[..., 0]  # one side grows, the other shrinks
    assert np.array_equal(grown, cv2.resize(checks, (8, 64), interpolation=cv2.INTER_LINEAR))


def test_a_picture_of_the_tensor_s_size_goes_through_unchanged():
    image = smooth(24, 32, 3)
    assert np.array_equal(to_bytes(image, InputSpec(24, 32, colour="bgr")), image)
    assert np.array_equal(to_bytes(image, InputSpec(24, 32)), image[..., ::-1])


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_encoded_pictures_are_decoded_at_the_cover_of_the_spec(resize):
    data = encoded(Image.fromarray(smooth(320, 480, 3)), "JPEG")
    spec = InputSpec(32, 32, resize=resize)
    assert np.array_equal(to_bytes(data, spec), to_bytes(decode(data, (32, 32)), spec))
    assert np.array_equal(to_bytes(bytearray(data), spec), to_bytes(memoryview(data), spec))
    with pytest.raises(EdgennError, match="truncated JPEG"):
        to_bytes(data[:500], spec)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((0, 5, 3), np.uint8),
        np.zeros((5, 0), np.uint8),
        np.zeros((5, 5, 2), np.uint8),
        np.zeros((5, 5, 0), np.uint8),
        np.zeros(5, np.uint8),
        np.zeros((1, 5, 5, 3), np.uint8),
        np.zeros((5, 5, 3), np.float32),
        np.zeros((5, 5, 3), np.uint16),
        [[1, 2], [3, 4]],
        None,
        "photo.jpg",  # a path is for `read`
        b"",
    ],
)
def test_what_is_no_picture_array_is_refused(image):
    with pytest.raises(EdgennError):
        to_bytes(image, InputSpec(4, 4))
    with pytest.raises(EdgennError):
        to_tensor(image, InputSpec(4, 4, dtype="float32"))


def read_only(array):
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "out",
    [
        np.zeros((4, 5, 3), np.uint8),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 3), np.int8),
        np.zeros((4, 8, 3), np.uint8)[:, ::2],
        np.zeros((4, 4, 3), np.uint8)[..., ::-1],
        read_only(np.zeros((4, 4, 3), np.uint8)),
        [0] * 48,
    ],
)
def test_an_out_that_does_not_fit_is_refused(out):
    with pytest.raises(EdgennError, match="out"):
        to_bytes(np.zeros((9, 9, 3), np.uint8), InputSpec(4, 4), out=out)
    with pytest.raises(EdgennError, match="out"):
        to_tensor(np.zeros((9, 9, 3), np.uint8), InputSpec(4, 4), out=out)


@pytest.mark.parametrize("size", [(480, 640), (1080, 1920), (96, 97), (400, 200)])
def test_halving_first_gives_nearly_the_same_picture(size):
    """Smooth noise, as photos are: by way of halves no byte is far from the plain average over areas."""
    noise = np.random.RandomState(1).randint(0, 256, (6, 6, 3)).astype(np.uint8)
    picture = cv2.resize(noise, size[::-1], interpolation=cv2.INTER_CUBIC)
    plain = cv2.resize(picture, (24, 24), interpolation=cv2.INTER_AREA)
    ours = to_bytes(picture, InputSpec(24, 24, colour="bgr"))
    assert np.abs(ours.astype(int) - plain).mean() < 1.5
    assert np.abs(ours.astype(int) - plain).max() <= 24
