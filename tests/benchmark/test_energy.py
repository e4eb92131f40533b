"""Energy: operations are those of the counters of SpikingJelly, in which the benchmark
builds the same networks."""

import pytest

from keras_ratesnn import analysis
from tests.analysis.test_analysis_energy import model_and_images


def test_operations_are_those_of_the_counters_of_spikingjelly():
    pytest.importorskip("spikingjelly")
    import torch
    from spikingjelly.activation_based import op_counter

    from recipes.benchmark.translated import Translated

    model, images = model_and_images()
    counters = [
        op_counter.MACCounter(extra_ignore_modules=[torch.nn.BatchNorm2d]),
        op_counter.SynOpCounter(),
    ]
    network = Translated(model).eval()
    with torch.no_grad(), op_counter.DispatchCounterMode(counters):
        network(torch.as_tensor(images))
    multiply_adds, accumulates = (
        counter.get_total() / len(images) for counter in counters
    )
    energy = analysis.energy(model, images)
    assert energy.multiply_adds.sum() == pytest.approx(multiply_adds, rel=0.01)
    assert energy.accumulates.sum() == pytest.approx(accumulates, rel=0.01)
