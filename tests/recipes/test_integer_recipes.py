"""Recipes with integer spikes: `--set levels=4`."""

import json

import keras
import numpy as np
import pytest

import keras_ratesnn
from recipes import catalogue, command_line, evaluate, publish, run
from recipes.compare import __main__ as compare
from recipes.compare import results, training
from recipes.data import digits
from tests.recipes.recipe_runs import QUICKLY, error_of, trained

pytestmark = pytest.mark.runs_once

INTEGERS = (*QUICKLY[1:], "timesteps=2", "levels=3")


def neurons_of(model):
    return [
        layer
        for layer in model.network.layers
        if isinstance(layer, keras_ratesnn.layers.Neuron)
    ]


@pytest.fixture(scope="module")
def integer_run(tmp_path_factory):
    """The folder and record of a run with integer spikes, which was interrupted after
    its first epoch."""
    folder = tmp_path_factory.mktemp("integers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recipes.callbacks.TensorBoard.on_epoch_end", interrupt)
        with pytest.raises(AssertionError):
            trained(folder, "digits", "--set", *INTEGERS, "epochs=2")
    return folder, trained(folder, "digits", "--set", *INTEGERS, "epochs=2")


def interrupt(callback, epoch, logs=None):
    raise KeyboardInterrupt


def test_a_run_with_integer_spikes_resumes_with_its_neurons_and_names_its_slots(
    integer_run, capsys
):
    folder, record = integer_run
    assert (record["settings"]["levels"], record["slots"]) == (3, 6)
    assert len(record["curve"]["loss"]) == 2
    neurons = neurons_of(keras.saving.load_model(folder / "last.keras"))
    assert [(type(layer), layer.levels) for layer in neurons] == [
        (keras_ratesnn.layers.ILIF, 3)
    ] * 3
    assert results.method_name(record["settings"], " ") == "rate 3 levels"
    assert evaluate.main([str(folder), "--timesteps", "1", "4"]) == 0
    printed = capsys.readouterr().out
    assert "T = 1, 3 slots" in printed
    assert "T = 4, 12 slots" in printed


def test_the_energy_of_a_run_is_the_one_that_describe_shows(integer_run):
    folder, record = integer_run
    model = keras.saving.load_model(folder / "last.keras")
    described = keras_ratesnn.describe(
        model, digits.load().test_images[: run.SAMPLE], verbose=False
    )
    assert record["joules"] == pytest.approx(described.energy.total)
    assert record["joules_without_spikes"] == pytest.approx(
        described.energy.total_without_spikes
    )


def test_a_network_of_integer_spikes_is_published(integer_run, tmp_path, capsys):
    texts = [
        "--name",
        "integers",
        "--data-set",
        "digits",
        "--preprocessing",
        "none",
        "--licence",
        "Apache-2.0",
    ]
    command = [str(integer_run[0]), *texts, "--folder", str(tmp_path)]
    assert "`architecture` must be None" in error_of(
        [*command, "--architecture", "VGG11"], capsys, publish.main
    )
    assert publish.main(command) == 0
    assert json.loads((tmp_path / "cards" / "integers.json").read_text())[
        "arguments"
    ] == {"levels": 3}
    model = keras.saving.load_model(tmp_path / "weights" / "integers.keras")
    assert {layer.levels for layer in neurons_of(model)} == {3}


def test_a_run_with_quantised_weights_is_saved_and_published_with_them(
    tmp_path, capsys
):
    record = trained(
        tmp_path / "run", "digits", "--set", *QUICKLY, "epochs=1", "weights=ternary"
    )
    assert record["settings"]["weights"] == "ternary"
    assert results.method_name(record["settings"], " ") == "rate ternary weights"
    texts = [
        "--name",
        "ternary",
        "--data-set",
        "digits",
        "--preprocessing",
        "none",
        "--licence",
        "Apache-2.0",
    ]
    command = [str(tmp_path / "run"), *texts, "--folder", str(tmp_path)]
    capsys.readouterr()
    assert "with weights=ternary" in error_of(
        [*command, "--architecture", "VGG11"], capsys, publish.main
    )
    assert publish.main(command) == 0
    card = json.loads((tmp_path / "cards" / "ternary.json").read_text())
    assert card["arguments"] == {"weights": "ternary"}
    assert sorted(card["integers"]) == [
        "constants",
        "memory",
        "memory_without_cache",
        "test_accuracy",
    ]
    # A step is not enough to learn much, but the network of integers has learned the
    # same.
    assert card["integers"]["test_accuracy"] == pytest.approx(
        card["test_accuracy"], abs=0.02
    )
    assert card["integers"]["memory"] > card["integers"]["memory_without_cache"] > 0
    model = keras.saving.load_model(tmp_path / "weights" / "ternary.keras")
    found = [getattr(layer, "weight_type", None) for layer in model.network.layers]
    assert [weights for weights in found if weights] == [
        "int8",
        "ternary",
        "ternary",
        "int8",
    ]


def test_a_network_whose_inputs_are_no_integers_is_published_without_one_of_integers(
    tmp_path, capsys
):
    trained(
        tmp_path / "run",
        "order",
        "--set",
        "epochs=1",
        "weights=int4",
        "jit_compile=False",
    )
    texts = [
        "--name",
        "order",
        "--data-set",
        "order",
        "--preprocessing",
        "none",
        "--licence",
        "Apache-2.0",
    ]
    assert publish.main([str(tmp_path / "run"), *texts, "--folder", str(tmp_path)]) == 0
    assert (
        "note: no network of integers is on the card. `x` must be integers"
        in capsys.readouterr().out
    )
    assert json.loads((tmp_path / "cards" / "order.json").read_text())["integers"] == {}


def test_a_converted_network_has_integer_neurons_without_a_leak(tmp_path):
    recipe = catalogue.find("digits").with_settings(
        ["ordinary=first", "levels=4", "timesteps=1", "width=0.1"]
    )
    dataset = recipe.load(None)
    recipe.ordinary_network(dataset).save(tmp_path / "ordinary.keras")
    neurons = neurons_of(run.build(recipe, dataset, tmp_path / "ordinary.keras"))
    assert [(layer.levels, layer.decay, layer.detach_reset) for layer in neurons] == [
        (4, 1.0, False)
    ] * 3
    detection = catalogue.find("digits_detection").with_settings(
        ["levels=4", "timesteps=1", "windows=1"]
    )
    assert detection.converted_neuron().levels == 4
    assert (
        type(catalogue.find("digits_detection").converted_neuron())
        is keras_ratesnn.layers.IF
    )


def test_the_ordinary_network_does_not_depend_on_the_levels():
    weights = []
    for levels in (None, 4):
        keras.utils.set_random_seed(0)
        weights.append(
            catalogue.find("digits")
            .with_settings([f"levels={levels}", "width=0.1"])
            .ordinary_network(None)
            .weights
        )
    for binary, integer in zip(*weights, strict=True):
        np.testing.assert_array_equal(
            *map(keras.ops.convert_to_numpy, (binary, integer))
        )


def test_recipes_of_whole_models_have_integer_neurons_in_all_places():
    for name in ("fashion_mnist_resnet13", "cifar10_resnet18", "fashion_mnist"):
        network = catalogue.find(name).with_settings(["levels=2"]).network(width=0.05)
        model = keras_ratesnn.SpikingModel(network, timesteps=1)
        assert keras_ratesnn.unroll(model).timesteps == 2
        values = np.zeros((1, *network.input_shape[1:]))
        assert model.predict(values, verbose=0).shape == (1, 10)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["levels=0"], "`levels` must be 1 or more. Received: levels=0"),
        (["levels=1.5"], "levels=1.5"),
        (
            ["weights=int2"],
            "`weights` must be one of None, 'int8', 'int4', 'ternary'. Received: "
            "weights='int2'",
        ),
        (
            ["weights=int4", "ordinary=only"],
            "With ordinary=only there is no spiking network",
        ),
        (
            ["levels=4", "ordinary=only"],
            "With ordinary=only there is no spiking network",
        ),
        (
            ["levels=4", "normalization=weight"],
            "`levels` must be None with normalization='weight'",
        ),
    ],
)
def test_levels_are_refused_where_they_have_no_effect(settings, said, tmp_path, capsys):
    assert said in error_of(
        ["digits", "--output", tmp_path / "run", "--set", *settings], capsys
    )


METHODS = ("--methods", "rate-multi", "rate-multi-2", "bptt-multi")


def test_compare_takes_all_combinations_that_a_method_can_have(capsys):
    arguments = command_line.parser(
        "compare", training.__doc__, training.add_arguments
    ).parse_args(
        ["fashion_mnist", *METHODS, "--vary", "timesteps=1,2,4", "levels=None,4"]
    )
    chosen = training.combinations(arguments)
    assert len(chosen) == 3 * 2 * 3 - 2
    assert chosen["timesteps=1-levels=4-rate-multi"] == [
        "timesteps=1",
        "levels=4",
        "gradient=rate",
        "step_mode=multi",
    ]
    assert "timesteps=1-levels=4-rate-multi-2" not in chosen
    assert (
        "rate-multi-2 with timesteps=1 is left out. `windows` must be at most"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--vary", "levels"],
            "--vary takes each key once, as key=value,value. Received: 'levels'.",
        ),
        (["--vary", "levels=0,4"], "`levels` must be 1 or more"),
        (
            ["--vary", "gradient=rate,bptt"],
            "`gradient` cannot be varied. Received: --vary gradient=rate,bptt. Name "
            "the method",
        ),
        (
            ["--vary", "levels=2,4", "--set", "levels=3"],
            "`levels` cannot be set here. Received: --set levels=3. Its values are",
        ),
        (["--vary", "epochs=1,2", "batch=3"], "the keys are"),
    ],
)
def test_compare_refuses_a_mistake_in_what_it_varies(arguments, said, tmp_path, capsys):
    assert said in error_of(
        ["digits", *arguments, "--output", tmp_path / "runs"], capsys, compare.main
    )
