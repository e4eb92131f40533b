"""What works on networks of ours works on those with the authors' weights: one of each
family."""

import exported
import keras
import numpy as np
import pytest
from published_cases import Case

import keras_ratesnn as rsnn
from keras_ratesnn import nir

pytestmark = pytest.mark.runs_once

QUICK = ("ratebp_vgg11", "maxformer_cifar")
OTHERS = (
    "espikeformer_large",
    "sew_resnet18",
    "spikformer_cifar",
    "qkformer_cifar",
    "sdt_v1",
    "sdt_v2",
    "spikingresformer",
    "ms_resnet18",
)
FAMILIES = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]


@pytest.mark.filterwarnings("ignore:Constant folding")
@pytest.mark.parametrize("name", FAMILIES)
def test_a_network_is_exported_analysed_and_unrolled(name, tmp_path):
    case = Case(name)
    model = case.model()
    # One step in ONNX.
    path = str(tmp_path / "step.onnx")
    state, outputs = (
        rsnn.export_step(model, path, "onnx", batch_size=len(case.x), verbose=False),
        [],
    )
    run, image = exported.function_of(path, "onnx"), model.network.inputs[0].name
    for _ in range(model.timesteps):
        actual = run({image: case.x, **state})
        state = {name: actual[f"next_{name}"] for name in state}
        outputs += [actual[key] for key in actual if not key.startswith("next_")]
    np.testing.assert_allclose(np.mean(outputs, axis=0), case.logits, rtol=0, atol=1e-4)
    # NIR knows no padded max pooling, no attention and no integer spikes.
    if name in ("ratebp_vgg11", "ms_resnet18"):
        nir.export_nir(model, tmp_path / "model.nir")
        read = nir.import_nir(tmp_path / "model.nir", model.timesteps)
        np.testing.assert_allclose(
            read.predict(case.x, verbose=0), case.logits, rtol=0, atol=1e-4
        )
    else:
        with pytest.raises(
            ValueError, match="`model` must be a network that NIR can describe"
        ):
            nir.export_nir(model, tmp_path / "model.nir")
    assert 0 < rsnn.analysis.energy(model, case.x).total < np.inf
    if name != "espikeformer_large":
        with pytest.raises(ValueError, match="It needs no unrolling"):
            rsnn.unroll(model)
        return
    unrolled = rsnn.unroll(model)
    assert unrolled.timesteps == 4 * model.timesteps
    np.testing.assert_allclose(
        unrolled.predict(case.x, verbose=0), case.logits, rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_a_network_is_tuned_by_rate_for_other_classes_and_runs_in_half_precision(name):
    case = Case(name)
    model = case.model(classes=3)
    assert model.network.output_shape == (None, 3)
    left = {
        theirs: reason
        for theirs, reason in model.checkpoint_report.unused.items()
        if "classes" in reason
    }
    assert 0 < len(left) <= 2
    assert set(left.values()) == {
        "it is for 10 classes; what is new, for 3, is not trained"
    }
    assert left.keys().isdisjoint(model.checkpoint_report.renamed)
    half = rsnn.models.in_precision(model, "mixed_bfloat16")
    assert half.predict(case.x, verbose=0).shape == (3, 3)
    model.compile(
        keras.optimizers.SGD(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    before = model.network.get_weights()
    losses = [float(model.train_on_batch(case.x, np.arange(3))) for _ in range(3)]
    assert np.isfinite(losses).all()
    trained = [
        not np.array_equal(*pair)
        for pair in zip(before, model.network.get_weights(), strict=True)
    ]
    assert np.mean(trained) > 0.8
