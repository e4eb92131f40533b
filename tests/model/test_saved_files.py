"""Files saved by an earlier version can be loaded, and give the same outputs."""

import pathlib
import zipfile

import keras
import numpy as np
import pytest
from helpers import spiking, to_numpy

import keras_ratesnn as rsnn

SAVED = pathlib.Path(__file__).parents[1] / "saved"


@pytest.mark.parametrize(
    ("name", "gradient", "step_mode"),
    [
        ("model_0_1_0", "Rate(windows=1, last_step_statistics=True)", "single"),
        ("last_0_1_0", "BPTT(recompute=False)", "multi"),
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


def test_a_file_that_names_a_setting_that_is_gone_is_one_clear_error(tmp_path):
    """Windows that differ between layers."""
    path = tmp_path / "model.keras"
    spiking(gradient=rsnn.gradients.Rate(windows=2)).save(path)
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    config = parts["config.json"]
    parts["config.json"] = config.replace(b'"windows": 2', b'"windows": {"lif": 2}')
    assert parts["config.json"] != config
    with zipfile.ZipFile(path, "w") as file:
        for name, content in parts.items():
            file.writestr(name, content)
    message = "`windows` must be the same in all layers.*such as windows=2"
    with pytest.raises(ValueError, match=message):
        keras.saving.load_model(path)
