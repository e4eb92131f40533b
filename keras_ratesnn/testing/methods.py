"""The conformance check of a gradient method."""

import keras
import numpy as np
from keras import layers

from keras_ratesnn import gradients
from keras_ratesnn._core import checks
from keras_ratesnn._core.annotations import Config
from keras_ratesnn._core.dtype_policy import global_policy
from keras_ratesnn.gradients import BPTT, GradientMethod
from keras_ratesnn.layers import LIF
from keras_ratesnn.spiking_model import STEP_MODES, SpikingModel
from keras_ratesnn.testing._config import check_config
from keras_ratesnn.testing._findings import require, require_close, require_same, saved_and_loaded, to_numpy
from keras_ratesnn.testing._gradients import loss_and_gradients

TIMESTEPS = 3
BATCH = 4


def check_gradient_method(
    method: str | GradientMethod | Config, normalization: bool = True, exact_at_one_step: bool = False
) -> None:
    """Checks that a gradient method conforms to `keras_ratesnn.gradients.GradientMethod`, on the current backend.

    On small networks (a dense one with a skip connection, one with dropout, a convolution with batch normalisation), in both
    step modes, it checks that

    * the config recreates the same method, the class is registered, and a model with the method can be saved and loaded;
    * outputs are those of the spiking network, in inference and in training: the time mean, or the output of every step;
    * every trainable variable gets a finite gradient of its shape, and not all gradients are zero;
    * batch normalisation updates its moving averages as often as in the spiking network.

    The checks take a few seconds, and longer on JAX, which compiles. They need no test framework.

    Args:
        method: A `GradientMethod`, or a name, see `keras_ratesnn.gradients.get`.
        normalization: Boolean, whether the method supports networks with ordinary batch normalisation. Defaults to `True`.
        exact_at_one_step: Boolean, whether to check that the gradient at one time step equals BPTT's. This holds for many
            methods, which approximate only the time dependence, but is not required. Defaults to `False`.

    Raises:
        AssertionError: If the method does not conform; the message explains the problem.
        TypeError: If `method` is neither.
    """
    method = gradients.get(method)
    checks.boolean("normalization", normalization)
    checks.boolean("exact_at_one_step", exact_at_one_step)
    check_config(method)
    with global_policy("float32"):
        _check(method, normalization, exact_at_one_step)


def _check(method, normalization, exact_at_one_step):
    if exact_at_one_step:
        _check_one_step(method)
    networks = {**({"convolution": _convolution} if normalization else {}), "dense": _dense, "dropout": _dropout}
    for step_mode in STEP_MODES:
        for name, network in networks.items():
            case = f"{type(method).__name__} in the {name} network with step_mode={step_mode!r}"
            _check_training(method, network, step_mode, case)
        _check_inference(method, step_mode, f"{type(method).__name__} with step_mode={step_mode!r}")
    _check_saving(method)


def _check_training(method, network, step_mode, case):
    model = SpikingModel(network(), TIMESTEPS, method, step_mode)
    reference = SpikingModel(network(), TIMESTEPS, BPTT(), step_mode)
    x = _inputs(model)
    weights = np.random.default_rng(1).normal(size=(BATCH, 3)).astype("float32")
    expected = (weights * to_numpy(reference(x, training=True))).sum()
    loss, found = loss_and_gradients(model, x, weights)
    # A method may draw its own dropout masks.
    require(
        network is _dropout or np.isclose(loss, expected, rtol=1e-4, atol=1e-5),
        f"{case}: the loss is {loss}, but that of the spiking network is {expected}. The value that `call` returns must be the "
        "network's output; attach a custom derivative with `gradients.graft`.",
    )
    for variable in model.trainable_variables:
        gradient = found[variable.path]
        require(
            np.isfinite(gradient).all() and gradient.shape == tuple(variable.shape),
            f"{case}: the gradient of {variable.path!r} must be finite and of shape {tuple(variable.shape)}. It has the shape "
            f"{gradient.shape}, and {np.isfinite(gradient).mean():.0%} of it is finite.",
        )
    require(any(gradient.any() for gradient in found.values()), f"{case}: every gradient is zero.")
    averages, wanted = (to_numpy([v for v in of.non_trainable_variables if "moving" in v.path]) for of in (model, reference))
    finding = f"{case}: the moving averages of batch normalisation are not those of the spiking network after one batch."
    require_close(averages, wanted, f"{finding} They must be updated in one walk only.")


def _check_inference(method, step_mode, case):
    """Checks the outputs of every step for one frame per step; training covers the time mean and inputs without time."""
    model, reference = (SpikingModel(_dense(), TIMESTEPS, gradient, step_mode, True) for gradient in (method, BPTT()))
    frames = np.stack([scale * _inputs(model) for scale in range(1, TIMESTEPS + 1)], axis=1)
    finding = f"{case}, return_sequences=True: the outputs in inference are not those of the spiking network."
    require_same(to_numpy(model(frames)), to_numpy(reference(frames)), finding, rtol=1e-5, atol=1e-6)


def _check_one_step(method):
    found, expected = (_one_step_gradients(gradient) for gradient in (method, BPTT()))
    for ours, theirs in zip(found, expected, strict=True):
        require_close(ours, theirs, f"{type(method).__name__}: with one time step the gradient is not BPTT's.")


def _one_step_gradients(gradient):
    model = SpikingModel(_dense(), 1, gradient)
    weights = np.random.default_rng(1).normal(size=(BATCH, 3)).astype("float32")
    return list(loss_and_gradients(model, _inputs(model), weights)[1].values())


def _check_saving(method):
    model = SpikingModel(_dense(), TIMESTEPS, method)
    loaded, name = saved_and_loaded(model), type(method).__name__
    require(
        type(loaded.gradient) is type(method) and loaded.gradient.get_config() == method.get_config(),
        f"{name}: a saved and loaded model has the method {loaded.gradient!r} instead of {method!r}.",
    )
    x = _inputs(model)
    require_same(to_numpy(loaded(x)), to_numpy(model(x)), f"{name}: a model gives different outputs after saving and loading.")


def _inputs(model):
    shape = model.network.inputs[0].shape[1:]
    return np.random.default_rng(0).normal(0.5, 1.0, (BATCH, *shape)).astype("float32")


def _seeded(index):
    """An initializer that gives the same weights in each network."""
    return keras.initializers.GlorotUniform(seed=index)


def _dense():
    inputs = keras.Input((5,))
    first = LIF(threshold=0.5)(layers.Dense(6, kernel_initializer=_seeded(0))(inputs))
    second = LIF(threshold=0.5)(layers.Add()([first, layers.Dense(6, kernel_initializer=_seeded(1))(first)]))
    return keras.Model(inputs, layers.Dense(3, kernel_initializer=_seeded(2))(second))


def _dropout():
    inputs = keras.Input((5,))
    spikes = layers.Dropout(0.3, seed=0)(LIF(threshold=0.5)(layers.Dense(6, kernel_initializer=_seeded(0))(inputs)))
    spikes = LIF(threshold=0.5)(layers.Dense(6, kernel_initializer=_seeded(1))(spikes))
    return keras.Model(inputs, layers.Dense(3, kernel_initializer=_seeded(2))(spikes))


def _convolution():
    x = inputs = keras.Input((4, 4, 2))
    for index in range(2):
        x = layers.Conv2D(4, 3, padding="same", use_bias=False, kernel_initializer=_seeded(index))(x)
        x = LIF(threshold=0.5)(layers.BatchNormalization()(x))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(3, kernel_initializer=_seeded(2))(x))
