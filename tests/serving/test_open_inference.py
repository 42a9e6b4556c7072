"""The Open Inference Protocol: with Triton's own client, with JSON by hand, and with whatever comes."""

import base64
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgenn.serving import multipart, open_inference
from edgenn.serving.limits import Refusal
from edgenn_device.card import InputSpec
from edgenn_device.classifier import Classifier

http = pytest.importorskip("tritonclient.http")
InferenceServerException = pytest.importorskip("tritonclient.utils").InferenceServerException

SMALL = InputSpec(2, 2, 1, "grey")


@pytest.fixture(scope="module")
def triton(server):
    client = http.InferenceServerClient(f"127.0.0.1:{server.port}")
    yield client
    client.close()


@pytest.fixture(scope="module")
def classifier(model):
    return Classifier(model, threads=1)


def image(content: bytes, binary: bool = True):
    given = http.InferInput("image", [1], "BYTES")
    data = content if binary else base64.b64encode(content)
    return given.set_data_from_numpy(np.array([data], np.object_), binary_data=binary)


def tensor(array: np.ndarray, binary: bool = True):
    return http.InferInput("tensor", list(array.shape), "UINT8").set_data_from_numpy(array, binary_data=binary)


def test_tritons_client_finds_the_server_and_the_model(triton, classifier):
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("tiny")
    assert triton.is_model_ready("tiny", "1")
    assert not triton.is_model_ready("another")
    assert "binary_tensor_data" in triton.get_server_metadata()["extensions"]
    said = triton.get_model_metadata("tiny")
    assert said["inputs"] == [
        {"name": "image", "datatype": "BYTES", "shape": [1]},
        {"name": "tensor", "datatype": "UINT8", "shape": [1, 32, 32, 3]},
    ]
    assert said["outputs"][0] == {"name": "scores", "datatype": "FP32", "shape": [1, 3]}
    assert said["parameters"]["labels"] == list(classifier.labels)


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])  # None: no outputs named, the client's default
@pytest.mark.parametrize("kind", ["image", "tensor"])
def test_tritons_client_gets_the_classifiers_scores(triton, classifier, picture, kind, binary_in, binary_out):
    expected = classifier.classify(picture)
    given = image(picture, binary_in) if kind == "image" else tensor(classifier.preprocess(picture), binary_in)
    outputs = None
    if binary_out is not None:
        outputs = [http.InferRequestedOutput(name, binary_data=binary_out) for name in ("label", "scores")]
    result = triton.infer("tiny", [given], outputs=outputs, request_id="seven")
    scores = result.as_numpy("scores")
    assert scores.dtype == np.float32
    assert scores.shape == (1, 3)
    assert np.array_equal(scores[0], expected.scores)
    assert [_text(v) for v in result.as_numpy("label")] == [expected.label]
    assert result.get_response()["id"] == "seven"
    assert result.get_response()["model_version"] == "1"


@pytest.mark.parametrize("binary", [True, False])
def test_the_best_classes_come_by_name(triton, classifier, picture, binary):
    wanted = http.InferRequestedOutput("scores", binary_data=binary, class_count=2)
    said = triton.infer("tiny", [image(picture)], outputs=[wanted]).as_numpy("scores")
    assert said.shape == (1, 2)
    parts = [_text(v).split(":") for v in said[0]]
    expected = classifier.classify(picture, top_k=2).top
    assert [(label, float(value)) for value, _, label in parts] == [
        (n, pytest.approx(s, abs=1e-6)) for n, s in expected
    ]
    assert all(classifier.labels[int(index)] == label for _, index, label in parts)


def test_tritons_client_is_told_what_is_wrong(triton, picture):
    for model, sent, said in (
        ("tiny", image(b"no picture"), "not a picture"),  # the picture
        ("another", image(picture), "ask for tiny"),  # the model
        ("tiny", tensor(np.zeros((1, 3, 32, 32), np.uint8)), r"\[1, 32, 32, 3\]"),  # the shape
    ):
        with pytest.raises(InferenceServerException, match=said):
            triton.infer(model, [sent])
    with pytest.raises(InferenceServerException, match="compressed"):
        triton.infer("tiny", [image(picture)], request_compression_algorithm="gzip")


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _request(**changes: object) -> dict:
    given = {"name": "tensor", "datatype": "UINT8", "shape": [1, 2, 2, 1], "data": [1, 2, 3, 255]}
    return {"inputs": [{**given, **changes}]}


@pytest.mark.parametrize(
    ("spec", "changes", "expected"),
    [
        (SMALL, {}, [1, 2, 3, 255]),  # flat
        (SMALL, {"data": [[[[1], [2]], [[3], [255]]]]}, [1, 2, 3, 255]),  # nested as the shape is
        (InputSpec(2, 2, 1, "grey", dtype="int8"), {"datatype": "INT8", "data": [-128, 0, 1, 127]}, [-128, 0, 1, 127]),
        (
            InputSpec(2, 2, 1, "grey", dtype="float32"),
            {"datatype": "FP32", "data": [0, 0.5, -1e3, 2]},
            [0, 0.5, -1000, 2],
        ),
    ],
)
def test_json_tensors_are_read(spec, changes, expected):
    content = open_inference.parse(json.dumps(_request(**changes)).encode(), None, spec).content
    assert content.dtype == spec.dtype
    assert content.shape == (1, 2, 2, 1)
    assert content.ravel().tolist() == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"data": [1, 2, 3]},  # too few
        {"data": [1, 2, 3, 4, 5]},  # too many
        {"data": [1, 2, 3, 256]},  # beyond the type
        {"data": [1, 2, 3, -1]},
        {"data": [1, 2, 3, 1.5]},  # not whole
        {"data": [1, 2, 3, True]},  # not a number
        {"data": [1, 2, 3, "4"]},
        {"data": [[1, 2], 3, 4]},  # uneven
        {"data": {"0": 1}},  # no list
        {"data": None, "parameters": {"binary_data_size": 4}},  # binary data that are not there
        {"parameters": {"shared_memory_region": "x"}},
        {"parameters": []},
        {"shape": [1, 4]},
        {"datatype": "FP32"},
        {"name": "another"},
        {"name": "image", "datatype": "BYTES", "shape": [1], "data": ["%%%"]},  # not base64
        {"name": "image", "datatype": "BYTES", "shape": [1], "data": [7]},
    ],
)
def test_a_wrong_input_is_refused(changes):
    with pytest.raises(Refusal) as refusal:
        open_inference.parse(json.dumps(_request(**changes)).encode(), None, SMALL)
    assert refusal.value.status == 400


@pytest.mark.parametrize(
    ("id", "status"),
    [
        ('"né \\ud83d\\ude00"', 200),  # a pair of surrogates is a sign like others
        ('"\\ud83d"', 400),  # half of one
        ('"\\ude00\\ud83d"', 400),  # the wrong way round
        ("7", 400),
    ],
)
def test_an_id_comes_back_or_is_refused(server, picture, id, status):
    image = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(picture).decode()]}
    body = json.dumps({"id": 0, "inputs": [image]}).replace('"id": 0', f'"id": {id}')
    answer = server.post(body.encode(), "/v2/models/tiny/infer")
    assert answer.status == status
    assert answer.json.get("id") == (json.loads(id) if status == 200 else None)


@pytest.mark.parametrize(
    "value",
    [
        "[" + "[]," * 100_000 + "[]]",  # lists
        "[" + "{}," * 100_000 + "{}]",  # objects
        "[" + "0," * 100_000 + "0]",  # numbers
        "[" + "[" * 100_000 + "]" * 100_000 + "]",  # one in the other
        "{" + '"":0,' * 100_000 + '"":0}',  # one name again and again
    ],
)
@pytest.mark.parametrize("where", ["data", "parameters"])
def test_more_values_than_the_shape_has_are_refused_unparsed(monkeypatch, value, where):
    text = json.dumps(_request(**{where: 7})).replace("7", value)
    monkeypatch.setattr(open_inference.json, "loads", lambda text: pytest.fail("it was parsed"))
    with pytest.raises(Refusal, match=r"more values than 'tensor' of shape \[1, 2, 2, 1\]"):
        open_inference.parse(text.encode(), None, SMALL)


def test_as_many_values_as_the_shape_has_are_parsed():
    spec = InputSpec(120, 130, 1, "grey")
    data = np.ones((1, 120, 130, 1), int).tolist()  # the most lists for a number
    body = json.dumps(_request(shape=[1, 120, 130, 1], data=data)).encode()
    assert open_inference.parse(body, None, spec).content.sum() == 120 * 130


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e400", "1e39", "9" * 400])
def test_floats_that_are_not_finite_are_refused(value):
    text = json.dumps(_request(datatype="FP32", data=[0, 0, 0, 7])).replace("7]", value + "]")
    with pytest.raises(Refusal):
        open_inference.parse(text.encode(), None, InputSpec(2, 2, 1, "grey", dtype="float32"))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=300)
@given(
    changes=st.dictionaries(st.sampled_from(["name", "datatype", "shape", "data", "parameters"]), _JSON),
    more=st.dictionaries(st.sampled_from(["id", "outputs", "parameters", "inputs"]), _JSON),
    tail=st.binary(max_size=10),
    length=st.none() | st.integers(-5, 300).map(str) | st.text(max_size=4),
)
def test_any_json_is_read_or_refused(changes, more, tail, length):
    body = json.dumps({**_request(**changes), **more}).encode()
    try:
        asked = open_inference.parse(body + tail, length, SMALL)
    except Refusal:
        pass
    else:
        assert np.asarray(asked.content).shape == (1, 2, 2, 1)
        open_inference.response("m", asked, np.zeros(3, np.float32), ("a", "b", "c"))


@given(body=st.binary(max_size=200), boundary=st.text(st.characters(codec="latin-1"), max_size=10))
def test_any_form_is_read_or_refused(body, boundary):
    try:
        assert isinstance(multipart.picture(body, f"multipart/form-data; boundary={boundary}"), bytes)
    except Refusal:
        pass
