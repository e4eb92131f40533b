"""Rows of a step, such as words or points, that are masked at some time steps: `(batch,
time, rows)`.

What a masked row holds changes nothing. Its neurons wait: a row gives what its other
steps give alone.
"""

import keras
import numpy as np
import pytest
from helpers import assert_same, both_step_modes, compiled, spiking, to_numpy
from keras import layers, ops
from masked_results import EACH_ONCE, T, results

import keras_ratesnn as rsnn
from keras_ratesnn.gradients import SLTT, Rate
from keras_ratesnn.layers import LIF, ParametricLIF

ROWS = 5
random = np.random.default_rng(1)
FRAMES = random.normal(0.8, 1.0, (4, T, ROWS, 6)).astype("float32")
# Some rows are masked at some steps, one at all of them; the end of two sequences is
# padding.
MASKS = random.random((4, T, ROWS)) < 0.6
MASKS[:, 0, 0] = MASKS[:, 1, 1] = True
MASKS[2, :, 2] = False
MASKS[1, 3:] = MASKS[3, 2:] = False


def holding(value, x=FRAMES):
    """What is in the masked rows."""
    return np.where(MASKS[..., None], x, np.float32(value))


def network(*neurons):
    """Neurons of each row, operations that are affine and that are not, a
    normalisation, and a mean over rows."""
    keras.utils.set_random_seed(0)
    learned = ParametricLIF(0.5, learn_threshold=True)
    first, second = neurons or (learned, LIF(0.5, 0.3, reset="hard"))
    inputs = keras.Input((ROWS, 6))
    x = layers.BatchNormalization(momentum=0.5)(layers.Dense(8)(inputs))
    x = second(layers.Dense(8, activation="tanh")(first(x)))
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


@pytest.mark.parametrize(("gradient", "step_mode"), EACH_ONCE, ids=str)
def test_what_a_masked_row_holds_changes_nothing(gradient, step_mode):
    found, expected = (
        results(
            spiking(network(), T, gradient, step_mode=step_mode),
            holding(value),
            mask=MASKS,
        )
        for value in (np.nan, 0.0)
    )
    assert all(np.isfinite(result).all() for result in expected)
    assert expected[1].any(), "no gradient reaches the first layer"
    assert_same(found, expected, rtol=0.0)


@both_step_modes
def test_a_row_gives_what_its_other_steps_give_alone(step_mode):
    """Each row is compared with a sequence of its own, whose steps are those at which
    the row is not masked."""

    def model_of(shape):
        neurons = LIF(0.5), rsnn.layers.ILIF(3, threshold=0.4), rsnn.layers.ALIF()
        neurons += rsnn.layers.CuBaLIF(), rsnn.layers.LeakyReadout(0.8)
        inputs = keras.Input(shape)
        outputs = [neuron(inputs) for neuron in neurons]
        network = keras.Model(inputs, outputs)
        return spiking(network, T, step_mode=step_mode, return_sequences=True)

    found = to_numpy(model_of((ROWS, 6))(holding(np.nan), mask=MASKS))
    alone = model_of((6,))
    for sample, row in np.ndindex(4, ROWS):
        steps = MASKS[sample, :, row]
        if not steps.any():
            continue
        alone.timesteps = int(steps.sum())
        expected = to_numpy(alone(FRAMES[sample, steps, row][None]))
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(
                ours[sample, steps, row], theirs[0], rtol=1e-5, atol=1e-6
            )
    assert all(output.any() for output in found)


def test_a_step_is_padding_where_all_its_rows_are():
    """And what pools rows leaves masked ones out."""
    model = spiking(network(), T)
    found = to_numpy(model(holding(np.nan), mask=MASKS))
    for sample in range(4):
        steps = MASKS[sample].any(axis=-1)
        alone = rsnn.SpikingModel(model.network, int(steps.sum()))
        mask = MASKS[sample, steps][None]
        expected = to_numpy(alone(FRAMES[sample, steps][None], mask=mask))
        np.testing.assert_allclose(found[sample], expected[0], rtol=1e-5, atol=1e-6)


def parallel():
    """Neurons that look back at steps at which a row was masked."""
    keras.utils.set_random_seed(0)
    first = rsnn.layers.SlidingPSN(2, threshold=0.3)
    return first, rsnn.layers.MaskedPSN(T, 2, threshold=0.3)


@pytest.mark.parametrize(
    ("neurons", "gradient", "other", "step_mode"),
    [
        (tuple, Rate(windows=T), "bptt", "multi"),
        (tuple, Rate(windows=T), "bptt", "single"),
        (parallel, Rate(windows=T), "bptt", "multi"),
        (parallel, Rate(windows=T), "bptt", "single"),
        (tuple, SLTT(), SLTT(recompute=False), "single"),
    ],
)
def test_windows_of_one_step_are_bptt_and_steps_that_run_again_have_their_masks(
    neurons, gradient, other, step_mode
):
    found, expected = (
        results(
            spiking(network(*neurons()), T, method, step_mode=step_mode),
            holding(np.nan),
            mask=MASKS,
        )
        for method in (gradient, other)
    )
    assert_same(found, expected, rtol=2e-3 if other == "bptt" else 1e-4)


@pytest.mark.parametrize(
    ("gradient", "step_mode"),
    [("rate", "multi"), ("rate", "single"), (Rate(windows=2), "multi")],
)
def test_the_rate_gradient_is_that_of_bptt_where_all_steps_are_alike(
    gradient, step_mode
):
    """Neurons without memory, on the same frame at each step at which a row is not
    masked."""
    x = holding(9.0, np.repeat(FRAMES[:, :1], T, axis=1))

    def results_of(gradient, step_mode):
        keras.utils.set_random_seed(0)
        y = inputs = keras.Input((ROWS, 6))
        for _ in range(2):
            y = LIF(0.0, 0.5)(layers.Dense(8, use_bias=False)(y))
        network = keras.Model(inputs, layers.Dense(3)(ops.sum(y, axis=1)))
        model = spiking(network, T, gradient, step_mode=step_mode)
        return results(model, x, mask=MASKS)

    expected = results_of("bptt", "multi")
    assert_same(results_of(gradient, step_mode), expected, rtol=1e-3)


@both_step_modes
def test_masks_that_layers_of_the_network_make_are_those_of_neurons(step_mode):
    """Word 0 is none: its embedding changes nothing."""
    words = np.random.default_rng(0).integers(1, 9, (4, T, ROWS)) * MASKS
    embedding = layers.Embedding(9, 6, mask_zero=True)
    inputs = keras.Input((ROWS,), dtype="int32")
    x = LIF(0.5, 0.1)(layers.Dense(8)(embedding(inputs)))
    network = keras.Model(inputs, layers.GlobalAveragePooling1D()(x))
    model = spiking(network, T, step_mode=step_mode)
    weights = to_numpy(embedding.embeddings).copy()
    found = []
    for value in (0.0, 3.0):
        weights[0] = value
        embedding.embeddings.assign(weights)
        found.append(results(model, words.astype("int32"), mask=None))
    assert found[0][1].any()
    assert_same(found[1], found[0], rtol=0.0)


def test_a_layer_before_the_model_makes_masks_of_rows():
    inputs, model = keras.Input((T, ROWS, 6)), spiking(network(), T)
    outer = keras.Model(inputs, model(layers.Masking(-1.0)(inputs)))
    found = compiled(outer).predict(holding(-1.0), verbose=0)
    expected = to_numpy(model(FRAMES, mask=MASKS))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
