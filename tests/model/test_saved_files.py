"""Files saved by an earlier version can be loaded, and give the same outputs."""

import pathlib

import keras
import numpy as np
import pytest
from helpers import to_numpy

SAVED = pathlib.Path(__file__).parents[1] / "saved"


@pytest.mark.parametrize(
    ("name", "gradient", "step_mode"),
    [
        ("model_0_1_0", "Rate(windows=1, last_step_statistics=True)", "single"),
        ("last_0_1_0", "BPTT()", "multi"),
    ],
)
def test_a_model_of_an_earlier_version_gives_the_same_predictions_and_can_be_trained(
    name, gradient, step_mode
):
    """The first one has a convolution, normalisation, a learned neuron, a hard reset in
    a nested model, a bare cell and dropout, half-trained. `saved/make_last_0_1_0.py`
    says what the other one has."""
    with np.load(SAVED / f"{name}.npz") as file:
        arrays = dict(file)
    model = keras.saving.load_model(SAVED / f"{name}.keras")
    assert repr(model.gradient) == gradient
    assert model.step_mode == step_mode
    np.testing.assert_allclose(
        model.predict(arrays["x"], verbose=0), arrays["outputs"], rtol=1e-4, atol=1e-6
    )
    before = to_numpy(model.trainable_variables[0])
    model.train_on_batch(arrays["x"], np.arange(5) % 4)
    assert np.abs(to_numpy(model.trainable_variables[0]) - before).max() > 0
