"""An audit says what the analyses say, of files that somebody published, too."""

import json

import keras
import numpy as np
import pytest
from helpers import chain
from published_cases import Case

import keras_ratesnn as rsnn
from keras_ratesnn.analysis import Costs, audit
from keras_ratesnn.layers import IF, LIF

X = np.random.default_rng(0).random((40, 4), "float32")
Y = np.arange(40) % 3


@pytest.fixture(scope="module")
def model():
    """A network with weights that make it spike."""
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((4,)),
        keras.layers.Dense(8),
        LIF(threshold=0.2),
        keras.layers.Dense(3),
    ]
    return rsnn.SpikingModel(keras.Sequential(layers), timesteps=3, name="tiny")


def test_an_audit_is_what_the_analyses_of_the_first_samples_are(model):
    found = audit(model, X, Y)
    expected = rsnn.analysis.energy(model, X[:32], Costs.int8())
    described = rsnn.describe(model, X[:32], verbose=False)
    assert found.description.layers == described.layers
    assert (found.energy.total, found.dependence) == (expected.total, "")
    np.testing.assert_array_equal(
        found.accuracy.accuracy,
        rsnn.analysis.accuracy_over_time(model, X, Y, verbose=0).accuracy,
    )
    content = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert content["joules"] == pytest.approx(expected.spiking.parts)
    assert content["break_even"] == expected.dense.crossover
    assert content["verdict"] == found.verdict


def test_every_number_has_a_definition_a_source_and_a_command_that_runs(model):
    numbers = audit(model, X, Y).numbers
    assert len(numbers) == 10
    for number in numbers:
        assert all(number)
        eval(number.command, {"rsnn": rsnn, "model": model, "x": X[:2], "y": Y[:2]})
    assert [number.name for number in audit(model, X).numbers][-1] != "accuracy"


def test_all_that_is_shown_says_which_samples_it_is_of(model, capsys):
    found = audit(model, X)
    found.print()
    printed = capsys.readouterr().out
    assert printed.count("32 of 40 samples") == 2
    assert "T = 3, each sees the same (4,)" in printed
    assert audit(model, np.stack([X, 1 - X, X], 1)).inputs == "its own (4,)"
    (axes,) = found.plot().axes
    assert axes.get_title() == "on 32 of 40 samples"
    assert len(axes.patches) == len(found.description.layers)
    lines = {line.get_linestyle(): line.get_xdata()[0] for line in axes.lines}
    assert lines["--"] == found.energy.dense.crossover


def test_a_network_without_synapses_or_with_nan_has_no_verdict(model):
    alone = chain(IF(), shape=(4,))
    found = audit(rsnn.SpikingModel(alone, timesteps=2), X)
    assert "No layer is counted" in found.verdict
    assert found.to_dict()["break_even"] is None
    wins = found.energy.wins(found.energy.dense)
    assert wins == "nowhere, as no layer that is counted takes spikes"
    broken = audit(model, np.where(X > 0.5, np.nan, X))
    assert broken.verdict.startswith("No verdict on 32 of 40 samples: the currents of")


def test_a_network_whose_synapses_take_no_spikes_has_an_unknown_rate():
    found = audit(
        rsnn.SpikingModel(chain(keras.layers.Dense(3), IF(), shape=(4,)), 2), X
    )
    assert "the network fires at an unknown rate" in found.verdict
    assert "nan" not in str(found)


def test_a_verdict_says_first_which_layers_are_silent(model):
    inputs = keras.Input((4,))
    x = LIF(threshold=0.1, name="first")(inputs)
    for name in ("second", "third"):
        x = keras.layers.Dense(8)(x)
        x = LIF(threshold=99.0, name=name)(x)
    network = keras.Model(inputs, keras.layers.Dense(3)(x))
    found = audit(rsnn.SpikingModel(network, timesteps=2), X)
    assert found.verdict.startswith("SILENT: no neuron spikes in second, third. ")
    assert "spiking wins" in found.verdict
    assert audit(model, X).verdict.startswith("On 32 of 40 samples")


def test_membranes_that_pass_from_sample_to_sample_are_named():
    case = Case("qkformer_cifar")
    found = audit(case.model(shared_membrane=True), case.x)
    neurons = "Layer 'stage3_block1_attention_output_neuron'"
    assert found.dependence.startswith(neurons)
    assert "beside copies of itself" in found.dependence
    assert "pass their membranes from each sample" in str(found).replace("\n    ", " ")
    assert found.verdict.endswith("a sample's answer depends on its batch.")
    other = audit(case.model(), case.x)
    assert "does not depend" in other.verdict
    assert str(other).startswith(str(case.path)[:40])
