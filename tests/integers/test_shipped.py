"""Networks that ship with the library: their backend, C and a slow simulator agree in
every spike and logit."""

import numpy as np
import pytest
from helpers import assert_close
from keras import ops
from numpy.testing import assert_array_equal

import keras_ratesnn as rsnn
from tests.integers.simulated import simulate
from tests.integers.test_c import GCC, assert_the_program_gives_the_logits

slow = pytest.mark.slow


def images(shape, count, largest):
    """Smooth random images in uint8."""
    random = np.random.default_rng(0)
    coarse = random.random((count, 6, 6, 1))
    rows, columns = (np.arange(size) * 6 // size for size in shape[:2])
    drawn = coarse[:, rows][:, :, columns] ** 2 * largest
    drawn = drawn + random.normal(0.0, largest / 16, (count, *shape))
    return np.clip(np.rint(drawn), 0, largest).astype("uint8")


@pytest.mark.parametrize(
    ("name", "count", "largest"),
    [
        ("digits", 20, 16),
        pytest.param("fashion_mnist", 1000, 255, marks=slow),
        pytest.param("fashion_mnist_resnet13_integer", 1000, 255, marks=slow),
    ],
)
def test_a_shipped_network_has_the_same_integers_everywhere(
    name, count, largest, tmp_path
):
    model = rsnn.models.load_pretrained(name)
    chip = rsnn.integer(model, largest_input=largest, verbose=False)
    x, last = images(chip.plan.input_shape, count, largest), chip.plan.layers[-1].name
    spikes, _, steps = simulate(chip.plan, x[:1])
    assert_close(chip.layer_outputs(x[:1]), {**spikes, last: steps}, rtol=0)
    logits = chip.integer_logits(x)
    assert len(np.unique(logits.argmax(1))) > 3
    assert_array_equal(chip.layer_outputs(x[:100])[last].sum(1), logits[:100])
    unit = np.float32(chip.plan.unit / chip.timesteps)
    real = ops.convert_to_numpy(chip(x[:2]))
    assert_array_equal(real, logits[:2].astype("float32") * unit)
    if GCC is not None:
        assert_the_program_gives_the_logits(chip, x, tmp_path, "-O2")


QUANTISED = [
    name
    for name, card in rsnn.models.list_pretrained().items()
    if card.integers and card.url is None
]


@pytest.mark.runs_once
@pytest.mark.parametrize("name", QUANTISED or ["none ships"])
def test_a_network_of_quantised_weights_becomes_a_program_of_the_sizes_on_its_card(
    name, tmp_path
):
    card = rsnn.models.list_pretrained()[name]
    chip = rsnn.integer(rsnn.models.load_pretrained(name), verbose=False)
    weights = {row.weights for row in chip.report.layers if row.weights}
    assert weights == {"int8", card.arguments["weights"]}
    path = tmp_path / "net.c"
    cached, without = (
        rsnn.export_c(chip, path, cache_input=cached) for cached in (True, False)
    )
    assert cached.constants == card.integers["constants"]
    assert cached.memory == card.integers["memory"]
    assert without.memory == card.integers["memory_without_cache"]
