"""Networks that ship with the library: their backend, C and a slow simulator agree in
every spike and logit."""

import numpy as np
import pytest
from helpers import assert_close

import keras_ratesnn as rsnn
from keras_ratesnn import models
from tests.integers.drawn import integers
from tests.integers.simulated import simulate
from tests.integers.test_c import GCC, assert_the_program_gives_the_logits


def test_a_shipped_network_has_the_same_integers_everywhere(tmp_path):
    model = models.load_pretrained("digits")
    chip = integers(model, largest_input=16)
    shape, last = chip.plan.input_shape, chip.plan.layers[-1].name
    x = np.random.default_rng(0).integers(0, 17, (20, *shape), "uint8")
    spikes, _, steps = simulate(chip.plan, x[:1])
    assert_close(chip.layer_outputs(x[:1]), {**spikes, last: steps}, rtol=0)
    if GCC is not None:
        assert_the_program_gives_the_logits(chip, x, tmp_path, "-O2")


QUANTISED = [
    name
    for name, card in models.list_pretrained().items()
    if card.integers and card.url is None
]


@pytest.mark.runs_once
@pytest.mark.parametrize("name", QUANTISED or ["none ships"])
def test_a_network_of_quantised_weights_becomes_a_program_of_the_sizes_on_its_card(
    name, tmp_path
):
    card = models.list_pretrained()[name]
    chip = integers(models.load_pretrained(name))
    weights = {row.weights for row in chip.report.layers if row.weights}
    assert weights == {"int8", card.arguments["weights"]}
    path = tmp_path / "net.c"
    cached, without = (
        rsnn.deploy.export_c(chip, path, cache_input=cached) for cached in (True, False)
    )
    assert cached.constants == card.integers["constants"]
    assert cached.memory == card.integers["memory"]
    assert without.memory == card.integers["memory_without_cache"]
