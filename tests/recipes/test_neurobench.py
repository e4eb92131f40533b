"""NeuroBench's harness scores our networks as `describe` and `analysis.energy` do.
.ci/versions neurobench runs all of it."""

import sys
import types

import keras
import numpy as np
import pytest
from keras import layers

import keras_ratesnn as rsnn
from recipes.neurobench_model import firing_rate, neurobench_model

pytestmark = pytest.mark.runs_once
T = 4


def network(reset="soft", padding="valid"):
    """Convolutions and dense layers with batch normalisation; frames of 8 x 6 pixels of
    2 channels."""
    inputs = keras.Input((8, 6, 2))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, padding=padding)(inputs))
    x = rsnn.layers.LIF(0.5, 0.5, reset=reset)(x)
    x = rsnn.layers.LIF(0.5, 0.5, reset=reset)(layers.Conv2D(5, 3, padding="same")(x))
    x = rsnn.layers.LIF(0.5, 0.5, reset=reset)(layers.Dense(7)(layers.Flatten()(x)))
    return rsnn.SpikingModel(keras.Model(inputs, layers.Dense(3)(x)), T)


def frames(seed=0):
    return (
        np.random.default_rng(seed).uniform(0.1, 1, (6, T, 8, 6, 2)).astype("float32")
    )


@pytest.fixture
def stand_in(monkeypatch):
    """NeuroBench's base class, where it is not installed."""
    base = type(
        "NeuroBenchModel", (), {"add_activation_module": lambda self, module: None}
    )
    monkeypatch.setitem(
        sys.modules, "neurobench.models", types.SimpleNamespace(NeuroBenchModel=base)
    )


@pytest.mark.parametrize("reset", ["soft", "hard"])
def test_the_network_gives_the_outputs_of_the_model_batch_after_batch(reset, stand_in):
    import torch

    model, x = network(reset, "same"), frames()
    theirs = neurobench_model(model)
    for batch in (x, x[:, 0], x):
        expected = model.predict(batch, verbose=0)
        assert expected.std(axis=0).min() > 0.01
        np.testing.assert_allclose(
            theirs(torch.tensor(batch)).numpy(), expected, rtol=0, atol=1e-5
        )


def test_networks_that_cannot_be_read_the_same_way_are_errors(stand_in):
    inputs = keras.Input((4,))
    x = rsnn.layers.IF(reset="hard")(layers.Dense(3)(rsnn.layers.IF()(inputs)))
    with pytest.raises(
        ValueError,
        match=r"reset all neurons in the same way. Received: .*\['hard', 'soft'\]",
    ):
        neurobench_model(rsnn.SpikingModel(keras.Model(inputs, x), T))
    inputs = keras.Input((5, 2))
    with pytest.raises(
        ValueError,
        match=r"one input, of 1 axis or of 3. Received: input_shape=\(None, 5, 2\)",
    ):
        neurobench_model(
            rsnn.SpikingModel(keras.Model(inputs, rsnn.layers.IF()(inputs)), T)
        )


def test_the_error_names_the_package_that_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "neurobench.models", None)
    with pytest.raises(
        ImportError,
        match=r"neurobench_model needs the package neurobench.models .*\[neurobench\]",
    ):
        neurobench_model(network())


def scores(model, x, labels):
    """NeuroBench's numbers for a model, in batches of 3."""
    import torch
    from neurobench.benchmarks import Benchmark
    from neurobench.metrics import static, workload

    data = torch.utils.data.TensorDataset(torch.tensor(x), torch.tensor(labels))
    metrics = [
        [static.Footprint, static.ConnectionSparsity, static.ParameterCount],
        [
            workload.ClassificationAccuracy,
            workload.ActivationSparsity,
            workload.SynapticOperations,
        ],
    ]
    loader = torch.utils.data.DataLoader(data, batch_size=3)
    return Benchmark(
        neurobench_model(model),
        loader,
        [],
        [lambda outputs: outputs.argmax(-1)],
        metrics,
    ).run(quiet=True)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("reset", ["soft", "hard"])
def test_neurobench_agrees_with_describe_and_energy(reset):
    pytest.importorskip(
        "neurobench",
        reason="its dependencies are not in the extra test: see .ci/versions "
        "neurobench",
    )
    model, x, labels = network(reset), frames(), np.arange(6) % 3
    model.network.layers[-1].kernel.assign(
        np.where(np.arange(21).reshape(7, 3) % 3, model.network.layers[-1].kernel, 0)
    )
    found, described = scores(model, x, labels), rsnn.describe(model, x, verbose=False)
    assert found["ClassificationAccuracy"] == pytest.approx(
        (model.predict(x, verbose=0).argmax(-1) == labels).mean()
    )
    assert found["ActivationSparsity"] == pytest.approx(
        1 - firing_rate(described), abs=1e-6
    )
    operations, energy = found["SynapticOperations"], described.energy
    assert operations["Effective_MACs"] == pytest.approx(energy.multiply_adds.sum())
    # NeuroBench leaves out synapses of weight 0: here a third of those of the last
    # layer.
    assert operations["Effective_ACs"] == pytest.approx(
        energy.accumulates.sum() - energy.accumulates[-1] / 3
    )
    kernels = [
        layer.kernel for layer in model.network.layers if hasattr(layer, "kernel")
    ]
    assert found["ConnectionSparsity"] == pytest.approx(
        7 / sum(np.prod(kernel.shape) for kernel in kernels), abs=1e-4
    )
    folded = rsnn.fold_batch_normalization(model, verbose=False)
    assert found["ParameterCount"] == folded.count_params()


@pytest.mark.filterwarnings("default")
def test_neurobench_counts_static_images_at_every_step_and_no_padding():
    pytest.importorskip(
        "neurobench",
        reason="its dependencies are not in the extra test: see .ci/versions "
        "neurobench",
    )
    images, labels = frames()[:, 0], np.arange(6) % 3
    valid = network("hard")
    energy = rsnn.analysis.energy(valid, images)
    assert scores(valid, images, labels)["SynapticOperations"][
        "Effective_MACs"
    ] == pytest.approx(T * energy.multiply_adds.sum())
    same = network("hard", "same")
    inside = (
        9 * 48 - 2 * 3 * (8 + 6) + 4
    )  # Of 9 inputs for each of 48 pixels, 3 are outside at an edge, 5 at a corner.
    found, energy = (
        scores(same, images, labels)["SynapticOperations"],
        rsnn.analysis.energy(same, images),
    )
    assert found["Effective_MACs"] == pytest.approx(
        T * energy.multiply_adds.sum() * inside / (9 * 48)
    )
    assert found["Effective_ACs"] == pytest.approx(energy.accumulates.sum())
