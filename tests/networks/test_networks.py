import numpy as np
import pytest

from edgenn import networks
from edgenn_device.errors import EdgennError


def test_simple_cnn_has_the_shapes_that_its_options_say():
    model = networks.build("simple_cnn", (48, 64, 1), 5, width=6, depth=3, dropout=0.1)
    assert model.input_shape == (None, 48, 64, 1)
    assert model.output_shape == (None, 5)
    widths = [layer.filters for layer in model.layers if hasattr(layer, "filters")]
    assert widths == [6, 6, 6, 12, 12, 24, 24]


def test_every_network_takes_bytes_and_gives_probabilities():
    for name in networks.names():
        model = networks.build(name, (64, 64, 3), 4)
        pictures = np.random.RandomState(0).randint(0, 256, (2, 64, 64, 3)).astype("float32")
        scores = model.predict(pictures, verbose=0)
        assert scores.shape == (2, 4)
        assert np.allclose(scores.sum(1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "shape", "options", "said"),
    [
        ("simple_cn", (64, 64, 3), {}, "did you mean simple_cnn?"),  # a name that is nearly one
        ("lenet", (64, 64, 3), {}, "choose one of simple_cnn"),  # one that is not
        ("simple_cnn", (64, 64, 3), {"wide": 3}, "has no option 'wide'"),  # an option that is not one
        ("simple_cnn", (64, 64, 3), {"width": 0}, "width 0 is not possible"),  # out of range
        ("simple_cnn", (64, 64, 3), {"depth": 9}, "needs pictures of 512 pixels or more"),  # pooled away to nothing
        ("simple_cnn", (64, 64, 3), {"dropout": 1.0}, "dropout 1.0 is not possible"),  # nothing would be left
    ],
)
def test_what_cannot_be_built_is_said(name, shape, options, said):
    with pytest.raises(EdgennError) as caught:
        networks.build(name, shape, 3, **options)
    assert said in str(caught.value)
