"""Shared helpers: differentiation on every backend, naive reference neurons, tiny
networks and data."""

import concurrent.futures
import contextlib
import pathlib
import shutil
import socket
import tempfile

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn._core.keras_internals import versions

BACKEND = keras.backend.backend()

CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

registered = keras.saving.register_keras_serializable("tests")
"""Makes classes of tests known to files of models."""

both_step_modes = pytest.mark.parametrize("step_mode", ["multi", "single"])
rate_and_bptt = pytest.mark.parametrize("gradient", ["rate", "bptt"])
two_methods = pytest.mark.parametrize(
    ("gradient", "step_mode"), [("rate", "multi"), ("bptt", "single")]
)
rate_and_sltt = pytest.mark.parametrize(
    ("gradient", "step_mode"), [("rate", "multi"), ("sltt", "single")]
)
needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="needs a C++ compiler"
)


def needs_keras(version):
    """A mark of tests of what an older Keras does not have."""
    return pytest.mark.skipif(
        versions.numbers(keras.__version__) < versions.numbers(version),
        reason=f"came with Keras {version}",
    )


def only_on(backend, reason):
    """A mark of tests that run on one backend."""
    return pytest.mark.backends(backend, reason=reason)


def not_on(backend, reason):
    """A mark of tests that run on the other backends."""
    others = {"torch", "jax", "tensorflow"} - {backend}
    return pytest.mark.backends(*others, reason=reason)


def recorded_early():
    """A context in which calls are recorded early, where they are at all."""
    early = {"eager_calls": {"auto": 1, True: 1}} if BACKEND == "torch" else {}
    return rsnn.engine_settings(**early)


def to_numpy(structure):
    """Tensors, in any structure, as arrays."""
    return keras.tree.map_structure(
        lambda tensor: np.asarray(ops.convert_to_numpy(tensor)), structure
    )


def gradient_of(function, tensors):
    """Gradients of a scalar function.

    Args:
        function: Takes tensors and returns a scalar, by `keras.ops`.
        tensors: List of arrays, of the dtype in which to compute.

    Returns:
        List of arrays: the gradient with respect to each of `tensors`, zeros where
        there is none.
    """
    tensors = [
        ops.convert_to_tensor(tensor, dtype=str(np.asarray(tensor).dtype))
        for tensor in tensors
    ]
    if BACKEND == "jax":
        import jax

        # Else each operation would be a program.
        gradients = jax.jit(jax.grad(lambda arguments: function(*arguments)))(tensors)
    elif BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(tensors)
            value = function(*tensors)
        gradients = tape.gradient(value, tensors, unconnected_gradients="zero")
    else:
        import torch

        tensors = [tensor.detach().requires_grad_() for tensor in tensors]
        gradients = torch.autograd.grad(
            function(*tensors), tensors, materialize_grads=True, allow_unused=True
        )
    return to_numpy(list(gradients))


def response(model, x, weights, training=True):
    """The outputs of a call of a model, and the gradient of Σ weights · outputs.

    Args:
        model: A Keras model.
        x: List of arrays, its inputs.
        weights: List of arrays like its outputs.
        training: Boolean. Defaults to `True`.

    Returns:
        `(outputs, of_inputs, of_variables)`: lists of arrays, and a dict of the path of
        each trainable variable to an array.
    """
    variables, fixed = (
        model.trainable_variables,
        [variable.value for variable in model.non_trainable_variables],
    )

    def weighted(*tensors):
        remaining = iter(tensors)
        given, by_output, values = (
            [next(remaining) for _ in of] for of in (x, weights, variables)
        )
        outputs, _ = model.stateless_call(
            values, fixed, given if len(given) > 1 else given[0], training=training
        )
        by_leaf = zip(by_output, keras.tree.flatten(outputs), strict=True)
        return sum(ops.sum(of * ops.cast(output, of.dtype)) for of, output in by_leaf)

    # The outputs are the derivative by the weights.
    found = gradient_of(
        weighted, [*x, *weights, *(to_numpy(variable.value) for variable in variables)]
    )
    of_inputs, outputs = found[: len(x)], found[len(x) : len(x) + len(weights)]
    return (
        outputs,
        of_inputs,
        {
            v.path: of
            for v, of in zip(variables, found[len(x) + len(weights) :], strict=True)
        },
    )


def loss_and_gradients(model, x, y, loss=None):
    """The loss of one batch in training and its gradients, as `training_results`
    computes them."""
    value, gradients, _ = training_results(model, x, y, loss)
    return value, gradients


def training_results(model, x, y, loss=None):
    """The loss of one batch in training, added losses included, its gradients and
    outputs; moving statistics are updated.

    Args:
        model: A Keras model.
        x: Array, or a structure of arrays, as the model takes it.
        y: Array, or what `loss` takes.
        loss: Function `(y, outputs) -> scalar`. Defaults to the sparse categorical
            crossentropy of logits.

    Returns:
        `(loss, gradients, outputs)`: a float, a dict of the path of each trainable
            variable to its gradient, an array, and the model's outputs, arrays.
    """
    return training_step(model, loss)(x, y)


def training_step(model, loss=None):
    """The function of `x` and `y` that `training_results` calls: for several batches,
    since JAX compiles it once."""
    loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    variables = model.trainable_variables
    differentiate = {
        "jax": _differentiated_by_jax,
        "tensorflow": _differentiated_by_tensorflow,
        "torch": _differentiated_by_torch,
    }
    results = differentiate[BACKEND](model, variables, loss)

    def step(x, y):
        value, gradients, outputs = results(
            *keras.tree.map_structure(ops.convert_to_tensor, (x, y))
        )
        paths = [variable.path for variable in variables]
        return (
            float(to_numpy(value)),
            dict(zip(paths, to_numpy(list(gradients)), strict=True)),
            to_numpy(outputs),
        )

    return step


def _differentiated_by_jax(model, variables, loss):
    import jax

    # Data are arguments: programs for other data are the same.
    def value_and_state(trainable, fixed, x, y):
        outputs, fixed, added = model.stateless_call(
            trainable, fixed, x, training=True, return_losses=True
        )
        return loss(y, outputs) + sum(added), (fixed, outputs)

    differentiate = jax.jit(jax.value_and_grad(value_and_state, has_aux=True))

    def results(x, y):
        state = [variable.value for variable in model.non_trainable_variables]
        (value, (state, outputs)), gradients = differentiate(
            [variable.value for variable in variables], state, x, y
        )
        for variable, new in zip(model.non_trainable_variables, state, strict=True):
            variable.assign(new)
        return value, gradients, outputs

    return results


def _differentiated_by_tensorflow(model, variables, loss):
    import tensorflow as tf

    def results(x, y):
        with tf.GradientTape() as tape:
            outputs = model(x, training=True)
            value = loss(y, outputs) + sum(model.losses)
        gradients = tape.gradient(
            value,
            [variable.value for variable in variables],
            unconnected_gradients="zero",
        )
        return (
            value,
            [tf.convert_to_tensor(gradient) for gradient in gradients],
            outputs,
        )

    return results


def _differentiated_by_torch(model, variables, loss):
    import torch

    def results(x, y):
        outputs = model(x, training=True)
        value = loss(y, outputs) + sum(model.losses)
        values = [variable.value for variable in variables]
        gradients = (
            torch.autograd.grad(
                value, values, materialize_grads=True, allow_unused=True
            )
            if values
            else []
        )
        return value, gradients, outputs

    return results


def assert_same(found, expected, message="", rtol=1e-4):
    """The arrays of two lists, or those of a dict in another one, are the same up to
    the rounding of the largest number."""
    for name, one, other in _pairs(found, expected):
        tolerance = rtol * max(1e-2, np.abs(other).max())
        np.testing.assert_allclose(
            one, other, rtol=rtol, atol=tolerance, err_msg=f"{message} {name}"
        )


def assert_close(found, expected, message="", **tolerance):
    """`np.testing.assert_allclose` of the arrays, tensors or variables of two lists, or
    of those of a dict in another one."""
    for name, *pair in _pairs(found, expected):
        arrays = (
            to_numpy(one)
            if ops.is_tensor(one) or isinstance(one, keras.Variable)
            else one
            for one in pair
        )
        np.testing.assert_allclose(*arrays, err_msg=f"{message} {name}", **tolerance)


def _pairs(found, expected):
    """Tuples of a name, a path or a number, and what is found and expected under it."""
    if isinstance(expected, dict):
        return [(name, found[name], other) for name, other in expected.items()]
    pairs = enumerate(zip(found, expected, strict=True))
    return [
        (getattr(other, "path", number), one, other) for number, (one, other) in pairs
    ]


def saved_and_loaded(model):
    """A model as it is after saving and loading."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "model.keras"
        model.save(file)
        return keras.saving.load_model(file)


def in_threads(function, arguments):
    """Calls a function with several tuples of arguments at the same time, in threads;
    raises what a call raises."""
    with concurrent.futures.ThreadPoolExecutor(len(arguments)) as threads:
        calls = [threads.submit(function, *of_one) for of_one in arguments]
    for call in calls:
        call.result()


def assert_trains(model, x, y):
    """One step gives a finite loss and finite gradients, which are nonzero in all
    kernels."""
    loss, gradients = loss_and_gradients(model, x, y)
    assert np.isfinite(loss)
    for path, gradient in gradients.items():
        assert np.isfinite(gradient).all(), path
        assert gradient.any() or not path.endswith("kernel"), path
    assert any(path.endswith("kernel") for path in gradients)


def free_port():
    """A port of this machine that nobody listens to."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def double_precision():
    """Everything in float64, also on JAX."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    if BACKEND == "jax":
        import jax

        jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)
        if BACKEND == "jax":
            jax.config.update("jax_enable_x64", False)


def called_before(how):
    """A network with a layer named "spikes" that was also called elsewhere.

    Args:
        how: `"add"`, by a Sequential as it grew, `"other network"`, `"nested"`, as a
            nested model of its own, or `"nested Sequential"`.
    """
    name = "spikes" if how in ("add", "other network") else None
    inside = [
        layers.Dense(8),
        layers.BatchNormalization(),
        rsnn.layers.LIF(threshold=0.3, name=name),
    ]
    if how == "add":
        network = keras.Sequential([keras.Input((6,))])
        for layer in (*inside, layers.Dense(3)):
            network.add(layer)
        return network
    part = keras.Sequential([keras.Input((6,)), *inside], name=name or "spikes")
    inputs = keras.Input((6,))
    x = layers.Rescaling(2.0)(inputs)
    if how == "other network":
        for layer in inside:
            x = layer(x)
    elif how == "nested":
        x = keras.Model(part.inputs, part.outputs[0], name="spikes")(x)
    else:
        x = part(x)
    return keras.Model(inputs, layers.Dense(3)(x))


def naive_lif(
    currents,
    decay=0.2,
    threshold=1.0,
    reset="soft",
    v_reset=0.0,
    initial_membrane=0.0,
    decay_input=False,
    reset_delay=False,
):
    """LIF neurons computed one number at a time, in float64.

    Args:
        currents: Array `(T, ...)`, the input of every step.
        decay: Float, see `LIF`, as the others are.
        threshold: Float.
        reset: "soft" or "hard".
        v_reset: Float.
        initial_membrane: Float.
        decay_input: Boolean.
        reset_delay: Boolean.

    Returns:
        `(spikes, membranes, states)`, arrays `(T, ...)`: s_t, v_t before the reset and
        v⁺_t after it, or v_t if the reset is delayed.
    """
    currents = np.asarray(currents, "float64")
    spikes, membranes, states = (np.zeros_like(currents) for _ in range(3))
    for neuron in np.ndindex(currents.shape[1:]):
        state, spike = initial_membrane, 0.0
        for t in range(len(currents)):
            membrane = (
                decay * state
                + (1.0 - decay if decay_input else 1.0) * currents[(t, *neuron)]
            )
            if reset_delay and spike == 1.0:
                membrane = membrane - threshold if reset == "soft" else v_reset
            spike = 1.0 if membrane >= threshold else 0.0
            state = membrane
            if spike == 1.0 and not reset_delay:
                state = membrane - threshold if reset == "soft" else v_reset
            spikes[(t, *neuron)], membranes[(t, *neuron)], states[(t, *neuron)] = (
                spike,
                membrane,
                state,
            )
    return spikes, membranes, states


def dyadic(shape, low=-1.0, high=2.0, seed=0):
    """Random multiples of 1/16: exact in every float dtype, as are a few steps of
    neurons with decay 0, 1/4 or 1/2."""
    return (
        np.random.default_rng(seed).integers(int(low * 16), int(high * 16), shape)
        / 16.0
    )


def data(samples=10, shape=(6,), classes=3, seed=0):
    """Inputs and labels, from a separate random generator."""
    generator = np.random.default_rng(seed)
    return generator.normal(0.5, 1.0, (samples, *shape)).astype(
        "float32"
    ), generator.integers(0, classes, samples)


RUNS: list = []
"""The size of the batch for each time that Python runs a `Noted`."""


@keras.saving.register_keras_serializable(package="tests")
class Noted(layers.Layer):
    """Notes each time that Python runs it, of which a replay is none."""

    def call(self, inputs):
        # An attribute would be a setting that changes.
        RUNS.append(inputs.shape[0])
        return inputs * 1.0


class Batches(keras.utils.PyDataset):
    """Arrays in batches of four: a data set that nobody looks into before."""

    def __init__(self, *arrays):
        super().__init__()
        self.arrays = arrays

    def __len__(self):
        return len(self.arrays[0]) // 4

    def __getitem__(self, index):
        return tuple(array[4 * index : 4 * index + 4] for array in self.arrays)


def distiller(student=None, teacher=None):
    """What teaches a model the logits of an ordinary one, unless another is given."""
    models = teacher or chain(layers.Dense(3)), student or spiking()
    losses = keras.distillation.LogitsDistillation()
    return rsnn.distillation.Distiller(*models, losses)


def chain(*parts, shape=(6,), **kwargs):
    """A network of layers, one after another; `kwargs` are those of its input."""
    x = inputs = keras.Input(shape, **kwargs)
    for part in parts:
        x = part(x)
    return keras.Model(inputs, x)


def mlp(features=6, width=8, classes=3, **lif):
    """Dense, LIF, Dense."""
    neurons = rsnn.layers.LIF(**lif)
    return chain(layers.Dense(width), neurons, layers.Dense(classes), shape=(features,))


def spiking(network=None, timesteps=3, gradient="rate", **kwargs):
    """A SpikingModel of the `mlp`, unless another network is given."""
    return rsnn.SpikingModel(
        mlp() if network is None else network,
        timesteps=timesteps,
        gradient=gradient,
        **kwargs,
    )


def compiled(model, optimizer=None, loss=None, **kwargs):
    """Compiles the model for integer labels, unless another loss is given."""
    loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer or keras.optimizers.SGD(0.1), loss, **kwargs)
    return model
