"""The conformance check of a gradient method."""

import keras
import numpy as np
from keras import layers

from keras_ratesnn._core import checks
from keras_ratesnn._core.annotations import Config
from keras_ratesnn._core.dtype_policy import global_policy
from keras_ratesnn.gradients import BPTT, GradientMethod, get
from keras_ratesnn.layers import LIF
from keras_ratesnn.spiking_model import STEP_MODES, SpikingModel
from keras_ratesnn.testing._config import check_config
from keras_ratesnn.testing._findings import (
    require,
    require_close,
    require_same,
    saved_and_loaded,
    to_numpy,
)
from keras_ratesnn.testing._gradients import loss_and_gradients

TIMESTEPS = 3
BATCH = 4

PADDED = np.array(
    [[1, 0, 1, 1, 0], [1, 1, 0, 1, 0], [0, 1, 1, 0, 1], [1, 1, 1, 0, 0]], "bool"
)
"""For each sample, which of its steps are data, in a sequence with padding: as many as
without."""

PADDING = -7.0


def check_gradient_method(
    method: str | GradientMethod | Config,
    normalization: bool = True,
    exact_at_one_step: bool = False,
    every_weight: bool = True,
    modes_agree: bool = True,
    padding: bool = True,
) -> None:
    """Checks that a gradient method conforms to
    `keras_ratesnn.gradients.GradientMethod`, on the current backend.

    On small networks (a dense one with a skip connection, one with dropout, a
    convolution with batch normalisation), in both step modes, it checks that

    * the config recreates the same method, the class is registered, and a model with
      the method can be saved and loaded;
    * outputs are those of the spiking network, in inference and in training: the time
      mean, or the output of every step;
    * every trainable variable gets a finite gradient of its shape that is not zero;
    * the gradients of the dense network are the same in both step modes, and for
      sequences with padding between their steps and at their end, unless the method
      draws random numbers;
    * batch normalisation updates its moving averages as often as in the spiking
      network.

    It does not check that the gradient is the one that is meant, which a slow loop over
    time can tell; nor half precision, recurrent neurons, layers that mix time steps,
    and networks with several inputs or outputs.

    The checks take a few seconds, and longer on JAX, which compiles. They need no test
    framework.

    Args:
        method: A `GradientMethod`, or a name, see `keras_ratesnn.gradients.get`.
        normalization: Boolean, whether the method supports networks with ordinary batch
            normalisation. Defaults to `True`.
        exact_at_one_step: Boolean, whether to check that the gradient at one time step
            equals BPTT's. This holds for many methods, which approximate only the time
            dependence, but is not required. Defaults to `False`.
        every_weight: Boolean, whether the method trains all weights. If `False`, one
            gradient that is not zero is enough. Defaults to `True`.
        modes_agree: Boolean, whether gradients are the same in both step modes without
            normalisation. Defaults to `True`.
        padding: Boolean, whether the method supports sequences with padding, of which
            only the other steps count, wherever the padding is. Defaults to `True`.

    Raises:
        AssertionError: If the method does not conform; the message explains the
            problem.
        TypeError: If `method` is neither, or another argument not a boolean.
        ValueError: If the name is unknown.
    """
    method = get(method)
    switches = {
        "normalization": normalization,
        "exact_at_one_step": exact_at_one_step,
        "every_weight": every_weight,
        "modes_agree": modes_agree,
        "padding": padding,
    }
    for name, value in switches.items():
        checks.boolean(name, value)
    check_config(method)
    with global_policy("float32"):
        _check(method, **switches)


def _check(
    method, normalization, exact_at_one_step, every_weight, modes_agree, padding
):
    name, by_mode = type(method).__name__, {}
    if exact_at_one_step:
        _check_one_step(method)
    for step_mode in STEP_MODES:
        by_mode[step_mode] = _check_training(method, "dense", step_mode, every_weight)
        if padding and not method.uses_random_numbers:
            _check_padding(method, step_mode, by_mode[step_mode])
    if modes_agree and not method.uses_random_numbers:
        _require_same_gradients(
            by_mode["single"],
            by_mode["multi"],
            f'{name} in the dense network with step_mode="single"',
            'with step_mode="multi" it is another one. There handlers are given the '
            "rows of all steps at once, with t=None. "
            "Call check_gradient_method with modes_agree=False if the method is meant "
            "to differ.",
        )
    for step_mode in STEP_MODES:
        for network in ("dropout", "convolution") if normalization else ("dropout",):
            _check_training(method, network, step_mode, every_weight)
        _check_inference(method, step_mode, f"{name} with step_mode={step_mode!r}")
    _check_saving(method)


def _check_training(method, name, step_mode, every_weight):
    """Checks a training step in one of `NETWORKS`, and returns its gradients."""
    case = f"{type(method).__name__} in the {name} network with step_mode={step_mode!r}"
    model = SpikingModel(NETWORKS[name](), TIMESTEPS, method, step_mode)
    loss, gradients = loss_and_gradients(model, _inputs(model), _weights())
    # A method may draw its own dropout masks.
    if name != "dropout":
        _check_values(
            SpikingModel(NETWORKS[name](), TIMESTEPS, BPTT(), step_mode),
            model,
            loss,
            case,
        )
    for variable in model.trainable_variables:
        gradient = gradients[variable.path]
        require(
            np.isfinite(gradient).all() and gradient.shape == tuple(variable.shape),
            f"{case}: the gradient of {variable.path!r} must be finite and of shape "
            f"{tuple(variable.shape)}. It has the shape {gradient.shape}, and "
            f"{np.isfinite(gradient).mean():.0%} of it is finite.",
        )
    require(
        any(gradient.any() for gradient in gradients.values()),
        f"{case}: every gradient is zero.",
    )
    zero = [path for path, gradient in gradients.items() if not gradient.any()]
    require(
        not (every_weight and zero),
        f"{case}: the gradients of {zero} are zero, so that these weights learn "
        "nothing. Does something stop the gradient on its way to them? Give spikes a "
        "derivative, for example with `gradients.extend.graft`. Call "
        "check_gradient_method with every_weight=False if the method is not meant to "
        "train them.",
    )
    return gradients


def _check_values(reference, model, loss, case):
    """Checks the loss and the moving averages after a training step."""
    expected = (_weights() * to_numpy(reference(_inputs(model), training=True))).sum()
    require(
        np.isclose(loss, expected, rtol=1e-4, atol=1e-5),
        f"{case}: the loss is {loss}, but that of the spiking network is {expected}. "
        "The value that `call` returns must be the network's output; attach a custom "
        "derivative with `gradients.extend.graft`.",
    )
    finding = (
        f"{case}: the moving averages of batch normalisation are not those of "
        "the spiking network after one batch."
    )
    require_close(
        _moving_averages(model),
        _moving_averages(reference),
        f"{finding} They must be updated in one walk only.",
    )


def _moving_averages(model):
    return to_numpy([v for v in model.non_trainable_variables if "moving" in v.path])


def _check_padding(method, step_mode, expected):
    """Checks that a sequence with padding has the gradients `expected` that it has
    without."""
    model = SpikingModel(
        _dense(), PADDED.shape[1], method, step_mode, mask_value=PADDING
    )
    # Without padding it is an input that is the same at every step.
    x = np.where(PADDED[..., None], _inputs(model)[:, None], np.float32(PADDING))
    _, gradients = loss_and_gradients(model, x, _weights())
    _require_same_gradients(
        gradients,
        expected,
        f"{type(method).__name__} in the dense network with step_mode={step_mode!r} "
        "for a sequence with padding",
        "without padding it is another one. What passes from step to step waits in "
        "padding if it is in the state that `advance` returns, and not on `self`. Call "
        "check_gradient_method with padding=False if the method cannot train on such "
        "sequences.",
    )


def _require_same_gradients(gradients, expected, case, finding):
    """Raises AssertionError unless the gradients of two networks of the same layers are
    close."""
    for (path, ours), theirs in zip(gradients.items(), expected.values(), strict=True):
        require_close(
            ours, theirs, f"{case}: the gradient of {path!r} differs: {finding}"
        )


def _check_inference(method, step_mode, case):
    """Checks the outputs of every step for one frame per step; training covers the time
    mean and inputs without time."""
    model = SpikingModel(_dense(), TIMESTEPS, method, step_mode, True)
    reference = SpikingModel(_dense(), TIMESTEPS, BPTT(), step_mode, True)
    scales = range(1, TIMESTEPS + 1)
    frames = np.stack([scale * _inputs(model) for scale in scales], axis=1)
    finding = (
        f"{case}, return_sequences=True: the outputs in inference are not those "
        "of the spiking network."
    )
    require_same(
        to_numpy(model(frames)),
        to_numpy(reference(frames)),
        finding,
        rtol=1e-5,
        atol=1e-6,
    )


def _check_one_step(method):
    model = SpikingModel(_dense(), 1, method)
    reference = SpikingModel(_dense(), 1, BPTT())
    _, gradients = loss_and_gradients(model, _inputs(model), _weights())
    _, expected = loss_and_gradients(reference, _inputs(reference), _weights())
    case = f"{type(method).__name__} in the dense network with one time step"
    _require_same_gradients(gradients, expected, case, "it is not BPTT's.")


def _check_saving(method):
    model = SpikingModel(_dense(), TIMESTEPS, method)
    loaded, name = saved_and_loaded(model), type(method).__name__
    require(
        type(loaded.gradient) is type(method)
        and loaded.gradient.get_config() == method.get_config(),
        f"{name}: a saved and loaded model has the method {loaded.gradient!r} instead "
        f"of {method!r}.",
    )
    x = _inputs(model)
    require_same(
        to_numpy(loaded(x)),
        to_numpy(model(x)),
        f"{name}: a model gives different outputs after saving and loading.",
    )


def _inputs(model):
    shape = model.network.inputs[0].shape[1:]
    return np.random.default_rng(0).normal(0.5, 1.0, (BATCH, *shape)).astype("float32")


def _weights():
    """The factors of the outputs in the loss."""
    return np.random.default_rng(1).normal(size=(BATCH, 3)).astype("float32")


def _dense_layer(units, name, seed):
    """A layer with the same weights in each network."""
    return layers.Dense(
        units, kernel_initializer=keras.initializers.GlorotUniform(seed=seed), name=name
    )


def _dense():
    inputs = keras.Input((5,))
    first = LIF(threshold=0.5)(_dense_layer(6, "first", 0)(inputs))
    second = LIF(threshold=0.5)(
        layers.Add()([first, _dense_layer(6, "second", 1)(first)])
    )
    return keras.Model(inputs, _dense_layer(3, "last", 2)(second))


def _dropout():
    inputs = keras.Input((5,))
    spikes = layers.Dropout(0.3, seed=0)(
        LIF(threshold=0.5)(_dense_layer(6, "first", 0)(inputs))
    )
    spikes = LIF(threshold=0.5)(_dense_layer(6, "second", 1)(spikes))
    return keras.Model(inputs, _dense_layer(3, "last", 2)(spikes))


def _convolution():
    x = inputs = keras.Input((4, 4, 2))
    for index, name in enumerate(("first", "second")):
        kernel = keras.initializers.GlorotUniform(seed=index)
        x = layers.Conv2D(
            4, 3, padding="same", use_bias=False, kernel_initializer=kernel, name=name
        )(x)
        x = LIF(threshold=0.5)(layers.BatchNormalization()(x))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, _dense_layer(3, "last", 2)(x))


NETWORKS = {"dense": _dense, "dropout": _dropout, "convolution": _convolution}
