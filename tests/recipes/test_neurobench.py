"""NeuroBench's harness scores our networks as `describe` and `analysis.energy` do.
.ci/versions neurobench runs all of it."""

import sys
import types

import numpy as np
import pytest
from helpers import chain
from keras import layers

import keras_ratesnn as rsnn
from keras_ratesnn.layers import IF, LIF
from recipes.neurobench_model import firing_rate, neurobench_model

pytestmark = pytest.mark.runs_once
T = 4


def network(reset="soft", padding="valid"):
    """Convolutions and dense layers with batch normalisation; frames of 8 x 6 pixels of
    2 channels."""
    neurons = [LIF(0.5, 0.5, reset=reset) for _ in range(3)]
    parts = [
        layers.Conv2D(4, 3, padding=padding),
        layers.BatchNormalization(),
        neurons[0],
        layers.Conv2D(5, 3, padding="same"),
        neurons[1],
        layers.Flatten(),
        layers.Dense(7),
        neurons[2],
        layers.Dense(3),
    ]
    return rsnn.SpikingModel(chain(*parts, shape=(8, 6, 2)), T)


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
    def fails(shape, *layers, said):
        model = rsnn.SpikingModel(chain(*layers, shape=shape), T)
        with pytest.raises(ValueError, match=said):
            neurobench_model(model)

    neurons = IF(), layers.Dense(3), IF(reset="hard")
    fails((4,), *neurons, said=r"all neurons in the same way.*\['hard', 'soft'\]")
    fails((5, 2), neurons[0], said=r"one input, of 1 axis or of 3.*\(None, 5, 2\)")


@pytest.fixture
def scores():
    """A function of a model, samples and labels that returns NeuroBench's numbers, in
    batches of 3."""
    reason = "its dependencies are not in the extra test: see .ci/versions neurobench"
    pytest.importorskip("neurobench", reason=reason)
    import torch
    from neurobench.benchmarks import Benchmark
    from neurobench.metrics import static, workload

    whole = [static.Footprint, static.ConnectionSparsity, static.ParameterCount]
    workloads = [workload.ClassificationAccuracy, workload.ActivationSparsity]
    metrics = [whole, [*workloads, workload.SynapticOperations]]

    def run(model, x, labels):
        data = torch.utils.data.TensorDataset(torch.tensor(x), torch.tensor(labels))
        loader = torch.utils.data.DataLoader(data, batch_size=3)
        answers = [lambda outputs: outputs.argmax(-1)]
        benchmark = Benchmark(neurobench_model(model), loader, [], answers, metrics)
        return benchmark.run(quiet=True)

    return run


LABELS = np.arange(6) % 3


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("reset", ["soft", "hard"])
def test_neurobench_agrees_with_describe_and_energy(reset, scores):
    model, x = network(reset), frames()
    last = model.network.layers[-1].kernel
    last.assign(np.where(np.arange(21).reshape(7, 3) % 3, last, 0))
    seen, described = scores(model, x, LABELS), rsnn.describe(model, x, verbose=False)
    right = model.predict(x, verbose=0).argmax(-1) == LABELS
    assert seen["ClassificationAccuracy"] == pytest.approx(right.mean())
    sparsity = 1 - firing_rate(described)
    assert seen["ActivationSparsity"] == pytest.approx(sparsity, abs=1e-6)
    operations, energy = seen["SynapticOperations"], described.energy
    assert operations["Effective_MACs"] == pytest.approx(energy.multiply_adds.sum())
    # NeuroBench leaves out synapses of weight 0: here a third of those of the last
    # layer.
    accumulates = energy.accumulates.sum() - energy.accumulates[-1] / 3
    assert operations["Effective_ACs"] == pytest.approx(accumulates)
    kernels = [
        layer.kernel for layer in model.network.layers if hasattr(layer, "kernel")
    ]
    share = 7 / sum(np.prod(kernel.shape) for kernel in kernels)
    assert seen["ConnectionSparsity"] == pytest.approx(share, abs=1e-4)
    folded = rsnn.deploy.fold_batch_normalization(model, verbose=False)
    assert seen["ParameterCount"] == folded.count_params()


@pytest.mark.filterwarnings("default")
def test_neurobench_counts_static_images_at_every_step_and_no_padding(scores):
    images = frames()[:, 0]
    # Of 9 inputs for each of 48 pixels, 3 are outside at an edge, 5 at a corner.
    inside = (9 * 48 - 2 * 3 * (8 + 6) + 4) / (9 * 48)
    for padding, share in (("valid", 1), ("same", inside)):
        model = network("hard", padding)
        energy = rsnn.analysis.energy(model, images)
        operations = scores(model, images, LABELS)["SynapticOperations"]
        multiply_adds = T * energy.multiply_adds.sum() * share
        assert operations["Effective_MACs"] == pytest.approx(multiply_adds)
        if padding == "same":
            accumulates = energy.accumulates.sum()
            assert operations["Effective_ACs"] == pytest.approx(accumulates)
