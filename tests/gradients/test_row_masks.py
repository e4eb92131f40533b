"""Rows of a step, such as words or points, that are masked at some time steps: `(batch,
time, rows)`.

What a masked row holds changes nothing. Its neurons wait: a row gives what its other
steps give alone.
"""

import keras
import numpy as np
import pytest
from helpers import assert_same, compiled, spiking, to_numpy
from keras import layers, ops
from masked_results import EACH_ONCE, STEP_MODES, T, Y, results

import keras_ratesnn as rsnn
from keras_ratesnn.gradients import SLTT, Rate

ROWS = 3
LENGTHS = np.array([4, 3, 4, 2])


def masks(seed=0):
    """Some rows are masked at some steps, one at all of them; the end of two sequences
    is padding."""
    rows = np.random.default_rng(seed).random((4, T, ROWS)) < 0.6
    rows[:, 0, 0] = rows[:, 1, 1] = True
    rows[2, :, 2] = False
    return rows & (np.arange(T) < LENGTHS[:, None])[..., None]


def frames(features=6):
    return (
        np.random.default_rng(1)
        .normal(0.8, 1.0, (4, T, ROWS, features))
        .astype("float32")
    )


def holding(value, x, rows):
    return np.where(rows[..., None], x, np.float32(value))


def network(*neurons, **kwargs):
    """Neurons of each row, operations that are affine and that are not, a
    normalisation, and a mean over rows."""
    keras.utils.set_random_seed(0)
    first, second = neurons or (
        rsnn.layers.ParametricLIF(0.5, learn_threshold=True),
        rsnn.layers.LIF(0.5, 0.3, reset="hard"),
    )
    inputs = keras.Input((ROWS, 6))
    x = first(
        layers.BatchNormalization(momentum=0.5, epsilon=1e-3)(layers.Dense(8)(inputs))
    )
    x = second(layers.Dense(8, activation="tanh", **kwargs)(x))
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


@pytest.mark.parametrize(("gradient", "step_mode"), EACH_ONCE, ids=str)
def test_what_a_masked_row_holds_changes_nothing(gradient, step_mode):
    rows, x = masks(), frames()
    found = [
        results(
            spiking(network(), T, gradient, step_mode=step_mode),
            holding(value, x, rows),
            mask=rows,
        )
        for value in (0.0, np.nan)
    ]
    assert all(np.isfinite(result).all() for result in found[0])
    assert found[0][1].any(), "no gradient reaches the first layer"
    assert_same(found[1], found[0], rtol=0.0)


@pytest.mark.parametrize("step_mode", STEP_MODES)
def test_a_row_gives_what_its_other_steps_give_alone(step_mode):
    """Each row is compared with a sequence of its own, whose steps are those at which
    the row is not masked."""
    rows, x = masks(), frames()
    of_rows, steps = (
        np.moveaxis(array, 2, 1).reshape(4 * ROWS, T, *array.shape[3:])
        for array in (rows, x)
    )
    order = np.argsort(~of_rows, axis=1, kind="stable")
    first = np.take_along_axis(steps, order[..., None], axis=1)
    for neuron in (
        rsnn.layers.LIF(0.5),
        rsnn.layers.ILIF(3, threshold=0.4),
        rsnn.layers.ALIF(),
        rsnn.layers.CuBaLIF(),
    ):
        inputs, of_row = keras.Input((ROWS, 6)), keras.Input((6,))
        model = spiking(
            keras.Model(inputs, neuron(inputs)),
            T,
            step_mode=step_mode,
            return_sequences=True,
        )
        found = to_numpy(model(holding(np.nan, x, rows), mask=rows))
        found = np.moveaxis(found, 2, 1).reshape(4 * ROWS, T, 6)
        alone = spiking(keras.Model(of_row, neuron(of_row)), T, return_sequences=True)
        expected = to_numpy(
            alone(
                first,
                mask=ops.convert_to_tensor(np.take_along_axis(of_rows, order, axis=1)),
            )
        )
        assert expected.any(), neuron
        np.testing.assert_array_equal(
            np.take_along_axis(found, order[..., None], axis=1),
            expected,
            err_msg=str(neuron),
        )


def parallel():
    """Neurons that look back at steps at which a row was masked."""
    keras.utils.set_random_seed(0)
    first = rsnn.layers.SlidingPSN(2, threshold=0.3)
    return first, rsnn.layers.MaskedPSN(T, 2, threshold=0.3)


def assert_methods_agree(methods, step_mode, neurons=tuple, rtol=1e-4):
    x = holding(np.nan, frames(), masks())
    found, expected = (
        results(
            spiking(network(*neurons()), T, method, step_mode=step_mode),
            x,
            mask=masks(),
        )
        for method in methods
    )
    assert_same(found, expected, rtol=rtol)


@pytest.mark.parametrize("step_mode", STEP_MODES)
@pytest.mark.parametrize("neurons", [tuple, parallel])
def test_windows_of_one_step_are_bptt(neurons, step_mode):
    assert_methods_agree((Rate(windows=T), "bptt"), step_mode, neurons, rtol=2e-3)


def test_steps_that_run_again_have_the_masks_of_their_rows():
    assert_methods_agree((SLTT(), SLTT(recompute=False)), "single")


def test_the_rate_gradient_is_that_of_bptt_where_all_steps_are_alike():
    """Neurons without memory, on the same frame at each step at which a row is not
    masked."""
    x, rows = np.repeat(frames()[:, :1], T, axis=1), masks()

    def results_of(gradient, step_mode):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((ROWS, 6))
        y = rsnn.layers.LIF(0.0, 0.5)(layers.Dense(8, use_bias=False)(inputs))
        y = rsnn.layers.LIF(0.0, 0.5)(layers.Dense(8, use_bias=False)(y))
        network = keras.Model(inputs, layers.Dense(3)(ops.sum(y, axis=1)))
        return results(
            spiking(network, T, gradient, step_mode=step_mode),
            holding(9.0, x, rows),
            mask=rows,
        )

    expected = results_of("bptt", "multi")
    for gradient, step_mode in (
        ("rate", "multi"),
        ("rate", "single"),
        (Rate(windows=2), "multi"),
    ):
        assert_same(
            results_of(gradient, step_mode), expected, (gradient, step_mode), rtol=1e-3
        )


@pytest.mark.parametrize("step_mode", STEP_MODES)
def test_masks_that_layers_of_the_network_make_are_those_of_neurons(step_mode):
    """Word 0 is none: its embedding changes nothing."""
    words = np.where(
        masks(), np.random.default_rng(0).integers(1, 9, (4, T, ROWS)), 0
    ).astype("int32")
    keras.utils.set_random_seed(0)
    inputs, embedding = (
        keras.Input((ROWS,), dtype="int32"),
        layers.Embedding(9, 6, mask_zero=True),
    )
    x = layers.GlobalAveragePooling1D()(
        rsnn.layers.LIF(0.5, 0.1)(layers.Dense(8)(embedding(inputs)))
    )
    model = spiking(keras.Model(inputs, layers.Dense(3)(x)), T, step_mode=step_mode)
    found = []
    for value in (0.0, 3.0):
        weights = to_numpy(embedding.embeddings).copy()
        weights[0] = value
        embedding.embeddings.assign(weights)
        found.append(results(model, words, mask=None))
    assert_same(found[1], found[0], rtol=0.0)


def test_fit_trains_with_the_masks_of_rows_that_a_layer_before_the_model_makes():
    rows, x = masks(), frames()
    inputs, model = keras.Input((T, ROWS, 6)), spiking(network(), T)
    value, *gradients = results(model, x, mask=rows)[
        : 1 + len(model.trainable_variables)
    ]
    expected = [
        to_numpy(variable.value) - of
        for variable, of in zip(model.trainable_variables, gradients, strict=True)
    ]
    outer = compiled(
        keras.Model(inputs, model(layers.Masking(-1.0)(inputs))),
        keras.optimizers.SGD(1.0),
    )
    assert outer.fit(holding(-1.0, x, rows), Y, shuffle=False, verbose=0).history[
        "loss"
    ] == pytest.approx([value], rel=1e-5)
    assert_same(
        [to_numpy(variable.value) for variable in model.trainable_variables], expected
    )
