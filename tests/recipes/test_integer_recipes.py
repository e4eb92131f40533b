"""Recipes with integer spikes, `--set levels=4`, and with quantised weights."""

import json

import keras
import pytest

import keras_ratesnn
from recipes import catalogue, evaluate, publish, run
from recipes.data import digits
from tests.recipes.recipe_runs import QUICKLY, stopped, trained

pytestmark = pytest.mark.runs_once

INTEGERS = (*QUICKLY[1:], "timesteps=2", "levels=3")


def neurons_of(model):
    return [
        layer
        for layer in model.network.layers
        if isinstance(layer, keras_ratesnn.layers.Neuron)
    ]


def texts(name):
    """The options of `recipes.publish` for a name."""
    options = f"--name {name} --data-set d --preprocessing p --licence Apache-2.0"
    return options.split()


def test_a_run_with_integer_spikes_resumes_with_its_neurons_and_is_published(
    tmp_path, capsys
):
    folder, command = tmp_path / "run", ("digits", "--set", *INTEGERS, "epochs=2")
    stopped(folder, 1, *command)
    record = trained(folder, *command)
    assert (record["settings"]["levels"], record["slots"]) == (3, 6)
    assert len(record["curve"]["loss"]) == 2
    model = keras.saving.load_model(folder / "last.keras")
    kinds = [(type(layer), layer.levels) for layer in neurons_of(model)]
    assert kinds == [(keras_ratesnn.layers.ILIF, 3)] * 3
    assert evaluate.main([str(folder), "--timesteps", "1", "4"]) == 0
    printed = capsys.readouterr().out
    assert "T = 1, 3 substeps" in printed
    assert "T = 4, 12 substeps" in printed
    # The energy is the one that `describe` shows.
    sample = digits.load().test_images[: run.SAMPLE]
    described = keras_ratesnn.describe(model, sample, verbose=False)
    assert record["joules"] == pytest.approx(described.energy.total)

    options = [*texts("integers"), "--folder", str(tmp_path)]
    assert publish.main([str(folder), *options]) == 0
    card = json.loads((tmp_path / "cards" / "integers.json").read_text())
    assert card["arguments"] == {"levels": 3}
    model = keras.saving.load_model(tmp_path / "weights" / "integers.keras")
    assert {layer.levels for layer in neurons_of(model)} == {3}


def test_a_network_whose_inputs_are_no_integers_is_published_without_one_of_integers(
    tmp_path, capsys
):
    settings = ("epochs=1", "weights=int4", "jit_compile=False")
    trained(tmp_path / "run", "order", "--set", *settings)
    command = [str(tmp_path / "run"), *texts("order"), "--folder", str(tmp_path)]
    assert publish.main(command) == 0
    note = "note: no network of integers is on the card. `x` must be integers"
    assert note in capsys.readouterr().out
    card = json.loads((tmp_path / "cards" / "order.json").read_text())
    assert card["integers"] == {}


def test_a_converted_network_has_integer_neurons_without_a_leak(tmp_path):
    settings = ["ordinary=first", "levels=4", "timesteps=1", "width=0.1"]
    recipe = catalogue.find("digits").with_settings(settings)
    dataset = recipe.load(None)
    recipe.ordinary_network(dataset).save(tmp_path / "ordinary.keras")
    model = run.build(recipe, dataset, tmp_path / "ordinary.keras")
    for layer in neurons_of(model):
        assert (layer.levels, layer.decay, layer.detach_reset) == (4, 1.0, False)
    detection = catalogue.find("digits_detection")
    assert type(detection.converted_neuron()) is keras_ratesnn.layers.IF


def test_recipes_of_whole_models_have_integer_neurons_in_all_places():
    for name in ("fashion_mnist_resnet13", "cifar10_resnet18"):
        network = catalogue.find(name).with_settings(["levels=2"]).network(width=0.05)
        model = keras_ratesnn.SpikingModel(network, timesteps=1)
        assert keras_ratesnn.deploy.unroll(model).timesteps == 2
