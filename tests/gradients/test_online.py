"""SLTT and OTTT against loops in NumPy; recomputed steps against stored ones."""

import keras
import naive_online
import numpy as np
import pytest
from helpers import (
    BACKEND,
    assert_close,
    compiled,
    data,
    double_precision,
    gradient_of,
    loss_and_gradients,
    mlp,
    saved_and_loaded,
    spiking,
    to_numpy,
    training_step,
)
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn.gradients import OTTT, SLTT

METHODS = {"sltt": SLTT, "ottt": OTTT}


def squared_error(y, outputs):
    return ops.sum(ops.square(outputs - y)) / (2 * len(y))


@pytest.mark.parametrize("step_mode", ["multi", "single"])
@pytest.mark.parametrize("method", METHODS)
def test_gradients_are_those_of_a_loop_over_steps(method, step_mode):
    random = np.random.default_rng(0)
    frames, targets = random.normal(0.5, 1.0, (5, 7, 6)), random.normal(size=(7, 3))
    with double_precision():
        inputs = keras.Input((6,), dtype="float64")
        x = inputs
        for width in (8, 5):
            x = rsnn.layers.LIF(decay=0.5)(
                layers.Dense(width, bias_initializer="random_normal")(x)
            )
        model = spiking(
            keras.Model(inputs, layers.Dense(3)(x)), 5, method, step_mode=step_mode
        )
        _, found = loss_and_gradients(
            model, np.swapaxes(frames, 0, 1), targets, squared_error
        )
        weights = [to_numpy(variable) for variable in model.trainable_variables]
        expected = naive_online.gradients(
            weights, frames, targets, 0.5, traces=method == "ottt"
        )
    assert all(np.abs(gradient).max() > 1e-3 for gradient in expected)
    for variable, gradient in zip(model.trainable_variables, expected, strict=True):
        # Keras' matrix products on PyTorch are in single precision: sums of numbers of
        # about 1.
        rtol = 1e-5 if BACKEND == "torch" else 1e-9
        np.testing.assert_allclose(
            found[variable.path], gradient, rtol=rtol, atol=1e-2 * rtol
        )


UNCHANGED = {
    "a regulariser": layers.ActivityRegularization(l2=0.0),
    "a factor": lambda x: 0.5 * x + 0.5 * x,
    "a quotient": lambda x: 2.0 * (x / 2.0),
    "a mean": lambda x: ops.mean(ops.stack([x, x], axis=1), axis=1),
    "axes": lambda x: ops.reshape(
        ops.transpose(ops.reshape(x, (-1, 8, 1)), (0, 2, 1)), (-1, 8)
    ),
    "a part": lambda x: ops.pad(x, ((0, 0), (1, 2)))[:, 1:9],
    "a product": lambda x: ops.matmul(x, ops.eye(8)),
}


def test_traces_pass_through_operations_that_are_linear():
    """What leaves spikes as they are leaves the gradient as it is."""
    x, y = data(shape=(3, 6))

    def gradients(operation, step_mode):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((6,))
        spikes = operation(
            rsnn.layers.LIF(decay=0.5, threshold=0.3)(layers.Dense(8)(inputs))
        )
        model = spiking(
            keras.Model(inputs, layers.Dense(3)(spikes)), 3, "ottt", step_mode=step_mode
        )
        return list(loss_and_gradients(model, x, y)[1].values())

    expected = gradients(lambda x: x, "multi")
    assert np.abs(expected[2]).max() > 1e-2
    for number, (name, operation) in enumerate(UNCHANGED.items()):
        assert_close(
            gradients(operation, ("multi", "single")[number % 2]),
            expected,
            rtol=1e-4,
            atol=1e-6,
            message=name,
        )


def network_of_everything():
    """Noise, batch normalisation of static and of other signals, a mask, a scale,
    regularisers, a frozen layer."""
    inputs = keras.Input((6,))
    static = layers.BatchNormalization()(layers.Dense(6)(inputs))
    spikes = rsnn.layers.BernoulliEncoder(seed=1)(inputs)
    x = layers.Add()(
        [layers.Dense(8)(spikes), layers.Dense(8, trainable=False)(static)]
    )
    x = rsnn.layers.LIF(activity_regularizer="l2")(layers.BatchNormalization()(x))
    x = layers.Rescaling(2.0)(layers.Dropout(0.5, seed=2)(x))
    x = rsnn.layers.ParametricLIF(learn_threshold=True)(
        layers.Dense(8, kernel_regularizer="l2")(x)
    )
    return keras.Model(inputs, [layers.Dense(3)(x), layers.Dense(2)(x)])


@pytest.mark.parametrize(
    ("method", "sequences"), list(zip(METHODS, (False, True), strict=True))
)
def test_recomputed_steps_give_the_gradients_and_leave_the_state_of_kept_ones(
    method, sequences
):
    x = np.random.default_rng(0).random((10, 6)).astype("float32")

    def loss(y, outputs):
        return sum(ops.mean(ops.square(output - 1.0)) for output in outputs)

    def trained(recompute):
        keras.utils.set_random_seed(0)
        network, gradient = (
            network_of_everything(),
            METHODS[method](recompute=recompute),
        )
        model = rsnn.SpikingModel(
            network, 4, gradient, step_mode="single", return_sequences=sequences
        )
        value, gradients = loss_and_gradients(model, x, x, loss)
        state = [to_numpy(variable) for variable in model.non_trainable_variables]
        return value, list(gradients.values()), state

    value, gradients, state = trained(recompute=True)
    expected_value, expected, expected_state = trained(recompute=False)
    assert value == pytest.approx(expected_value, rel=1e-5)
    # Of a bias before a batch normalisation there is none.
    assert (
        sum(np.abs(gradient).max() > 1e-4 for gradient in expected) > len(expected) - 4
    )
    assert_close(
        [*gradients, *state], [*expected, *expected_state], rtol=1e-4, atol=1e-6
    )


def test_integers_and_booleans_among_the_outputs_leave_the_gradient_of_the_others():
    x, _ = data()
    inputs = keras.Input((6,))
    spikes = rsnn.layers.LIF()(layers.Dense(8)(inputs))
    outputs = {
        "a": ops.cast(spikes, "int32"),
        "b": layers.Dense(3)(spikes),
        "c": spikes > 0.5,
    }
    network = keras.Model(inputs, outputs)

    def gradients(recompute):
        model = rsnn.SpikingModel(
            network,
            3,
            SLTT(recompute=recompute),
            step_mode="single",
            return_sequences=True,
        )
        return loss_and_gradients(
            model, x, x, lambda y, outputs: ops.mean(ops.square(outputs["b"] - 1.0))
        )[1]

    for found, expected in zip(
        gradients(True).values(), gradients(False).values(), strict=True
    ):
        assert np.abs(expected).max() > 1e-4
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings(
    "ignore:.*does not support masking and will therefore destroy"
)
@pytest.mark.parametrize("method", METHODS)
def test_masks_on_tensors_are_the_same_in_recomputed_steps_and_in_both_orders(method):
    """Keras finds the mask of one tensor in a list on the tensor itself, be that the
    same at every step or not."""
    ids, frames = keras.Input((5,), dtype="int32"), keras.Input((5, 8))
    static = layers.Embedding(10, 8, mask_zero=True)(ids)
    spikes = rsnn.layers.LIF()(layers.Dense(8)(layers.Dense(8)(static)))
    masked = layers.Masking()(frames)
    x = layers.Add()(
        [layers.Attention()([spikes, static]), layers.Attention()([masked, masked])]
    )
    hidden = rsnn.layers.LIF()(layers.Dense(8)(layers.Flatten()(x)))
    network = keras.Model([ids, frames], layers.Dense(3)(hidden))
    random = np.random.default_rng(0)
    inputs = [
        random.integers(0, 3, (6, 5)),
        random.normal(0.5, 1.0, (6, 2, 5, 8)).astype("float32"),
    ]
    inputs[1][:, :, 3:] = 0.0
    y = np.arange(6) % 3
    kept = spiking(network, 2, METHODS[method](recompute=False), step_mode="single")
    value, expected = loss_and_gradients(kept, inputs, y)
    for step_mode in ("single", "multi"):
        found_value, found = loss_and_gradients(
            spiking(network, 2, method, step_mode=step_mode), inputs, y
        )
        assert found_value == pytest.approx(value, rel=1e-5)
        assert_close(found, expected, rtol=1e-4, atol=1e-6)


def spectral(timesteps, gradient, step_mode="single", power_iterations=1):
    """The loss and the gradients of a batch, for layers that assign their weights at
    each step."""
    keras.utils.set_random_seed(0)
    x, y = data()
    inputs = keras.Input((6,))

    def dense(units, **kwargs):
        return layers.SpectralNormalization(
            layers.Dense(units), power_iterations, **kwargs
        )

    spikes = rsnn.layers.LIF(threshold=0.3)(dense(8)(inputs))
    outputs = dense(3)(
        rsnn.layers.LIF(threshold=0.3)(dense(8, trainable=False)(spikes))
    )
    model = spiking(
        keras.Model(inputs, outputs), timesteps, gradient, step_mode=step_mode
    )
    value, gradients = loss_and_gradients(model, x, y)
    return [value, *gradients.values()]


@pytest.mark.parametrize("method", METHODS)
def test_weights_that_a_layer_assigns_have_one_gradient_in_kept_and_recomputed_steps(
    method,
):
    expected = spectral(3, METHODS[method](recompute=False))
    assert_close(spectral(3, METHODS[method]()), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("gradient", "step_mode"), [("rate", "multi"), ("sltt", "single")]
)
def test_weights_that_a_layer_assigns_have_the_gradient_of_bptt_at_one_step(
    gradient, step_mode
):
    """With so many iterations that the norm is nearly the same when the layer is
    evaluated once more."""
    expected = spectral(1, "bptt", step_mode, 20)
    assert_close(spectral(1, gradient, step_mode, 20), expected, rtol=1e-2, atol=5e-4)


@pytest.mark.parametrize("method", METHODS)
def test_both_orders_agree_where_nothing_is_normalized(method):
    x, y = data()
    inputs = keras.Input((6,))
    hidden = rsnn.layers.LIF()(layers.Dense(8)(inputs))
    hidden = layers.Dropout(0.5, seed=3)(hidden)
    network = keras.Model(
        inputs, layers.Dense(3)(rsnn.layers.IF()(layers.Dense(8)(hidden)))
    )
    seeds = [
        to_numpy(generator.state) for generator in network.layers[3]._seed_generators
    ]

    def gradients(step_mode):
        for generator, seed in zip(
            network.layers[3]._seed_generators, seeds, strict=True
        ):
            generator.state.assign(seed)
        return loss_and_gradients(
            spiking(network, 4, method, step_mode=step_mode), x, y
        )[1]

    assert_close(
        gradients("single").values(), gradients("multi").values(), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_only_random_steps_carry_gradient_and_they_are_drawn_for_each_batch(step_mode):
    x, y = data()
    network = mlp()

    def output_gradient(random_steps):
        model = spiking(network, 4, SLTT(random_steps), step_mode=step_mode)
        found = [loss_and_gradients(model, x, y)[1] for _ in range(3)]
        return np.array([list(gradients.values())[-1] for gradients in found])

    # The bias of the output has the same gradient in each step.
    whole = loss_and_gradients(spiking(network, 4, "sltt", step_mode=step_mode), x, y)[
        1
    ]
    bias = list(whole.values())[-1]
    np.testing.assert_allclose(
        output_gradient(1), np.tile(bias / 4, (3, 1)), rtol=1e-4, atol=1e-7
    )
    np.testing.assert_allclose(
        output_gradient(3), np.tile(bias * 0.75, (3, 1)), rtol=1e-4, atol=1e-7
    )
    model = spiking(network, 4, SLTT(random_steps=1), step_mode=step_mode)
    kernels = [
        next(iter(loss_and_gradients(model, x, y)[1].values())) for _ in range(8)
    ]
    assert 2 <= len({kernel.round(6).tobytes() for kernel in kernels}) <= 4


def test_a_random_step_without_gradient_costs_a_forward_pass():
    """Of a step, convolutions forward and backward: those that always run, and those
    that run if it is chosen."""
    inputs = keras.Input((6, 6, 2))
    x = inputs
    for _ in range(2):
        x = rsnn.layers.LIF()(layers.Conv2D(4, 3, padding="same")(x))
    network = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    model = compiled(spiking(network, 4, SLTT(random_steps=2), step_mode="single"))
    found = COUNTED_BY[BACKEND](model, np.ones((4, 4, 6, 6, 2), "float32"))
    # PyTorch knows that frames need no gradient.
    assert found == (2, 3 if BACKEND == "torch" else 4)


def _counted_by_torch(model, x):
    """In a recorded call: two sweeps forward."""
    import torch
    from recorded_calls import recording
    from torch.utils._python_dispatch import TorchDispatchMode

    called = []

    class Calls(TorchDispatchMode):
        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            called.append(operation)
            # Both gradients, or that of the kernel.
            called.extend([operation] * (operation is backward and args[-1][0]))
            return operation(*args, **(kwargs or {}))

    forward, backward = (
        torch.ops.aten.convolution.default,
        torch.ops.aten.convolution_backward.default,
    )
    with recording():
        for _ in range(2):
            model(x, training=True)
    assert model.engine == "recorded"
    with Calls():
        outputs = model(x, training=True)
        torch.autograd.grad(
            ops.sum(outputs),
            [variable.value for variable in model.trainable_variables],
            allow_unused=True,
        )
    return called.count(forward) / (2 * model.timesteps), called.count(
        backward
    ) / model.gradient.random_steps


def _counted_by_jax(model, x):
    import jax

    def function(trainable, fixed):
        return ops.sum(model.stateless_call(trainable, fixed, x, training=True)[0])

    def inside(equation):
        parts = (
            getattr(part, "jaxpr", part)
            for part in keras.tree.flatten(list(equation.params.values()))
        )
        return [part for part in parts if hasattr(part, "eqns")]

    def count(jaxpr):
        return sum(
            (equation.primitive.name == "conv_general_dilated")
            + sum(map(count, inside(equation)))
            for equation in jaxpr.eqns
        )

    def choices(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name == "cond":
                yield list(map(count, inside(equation)))
            else:
                yield from (
                    choice for part in inside(equation) for choice in choices(part)
                )

    state = [
        [variable.value for variable in of]
        for of in (model.trainable_variables, model.non_trainable_variables)
    ]
    jaxpr = jax.make_jaxpr(jax.grad(function))(*state).jaxpr
    # The first step, and the loop over the others.
    found = list(choices(jaxpr))
    assert len(found) == 2
    return _forward_and_chosen(count(jaxpr), found)


def _counted_by_tensorflow(model, x):
    import tensorflow as tf

    @tf.function(autograph=False)
    def gradients():
        with tf.GradientTape() as tape:
            outputs = ops.sum(model(x, training=True))
        return tape.gradient(
            outputs, [variable.value for variable in model.trainable_variables]
        )

    graph = gradients.get_concrete_function().graph.as_graph_def()
    nodes = {
        function.signature.name: function.node_def
        for function in graph.library.function
    }

    def count(nodes):
        return sum(node.op.startswith("Conv2D") for node in nodes)

    every_node = [*graph.node, *(node for of in nodes.values() for node in of)]
    chosen = [node for node in every_node if node.op in ("If", "StatelessIf")]
    assert len(chosen) == 2
    branches = [
        [
            count(nodes[node.attr[name].func.name])
            for name in ("else_branch", "then_branch")
        ]
        for node in chosen
    ]
    return _forward_and_chosen(count(every_node), branches)


def _forward_and_chosen(every, choices):
    """Of convolutions in the forward sweep and in the other one, each with a first step
    and a loop."""
    for otherwise, chosen in choices:
        assert otherwise == 0
        assert chosen == choices[0][1]
    return (every - sum(chosen for _, chosen in choices)) / 4, choices[0][1]


COUNTED_BY = {
    "torch": _counted_by_torch,
    "jax": _counted_by_jax,
    "tensorflow": _counted_by_tensorflow,
}


@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_random_steps_are_drawn_from_those_that_are_not_padding(step_mode):
    """Each with the same probability, of however many samples; if there are fewer, all
    of them carry gradient."""
    x, y = data(4, (4, 6))
    x[np.arange(4) >= np.array([2, 1, 1, 1])[:, None]] = np.nan
    network = mlp()

    def output_gradients(gradient, batches):
        step = training_step(
            spiking(network, 4, gradient, step_mode=step_mode, mask_value=np.nan)
        )
        return np.array([[*step(x, y)[1].values()][-1] for _ in range(batches)])

    (whole,) = output_gradients("sltt", 1)
    drawn = output_gradients(SLTT(random_steps=1), 8)
    # Those of the first step, and of the second.
    first, second = np.unique(drawn.round(6), axis=0)
    assert min(np.abs(first).max(), np.abs(second).max()) > 0.01
    np.testing.assert_allclose(first + second, whole, atol=1e-5)
    np.testing.assert_allclose(
        output_gradients(SLTT(random_steps=3), 1)[0], whole, rtol=1e-4, atol=1e-7
    )


@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_as_many_random_steps_as_there_are_carry_the_whole_gradient(step_mode):
    x, y = data()
    network = mlp()
    some = loss_and_gradients(
        spiking(network, 4, SLTT(random_steps=4), step_mode=step_mode), x, y
    )[1]
    whole = loss_and_gradients(spiking(network, 4, "sltt", step_mode=step_mode), x, y)[
        1
    ]
    assert_close(some.values(), whole.values(), rtol=1e-4, atol=1e-7)


def test_more_random_steps_than_there_are_is_an_error_before_training():
    model = compiled(spiking(timesteps=2, gradient=SLTT(random_steps=3)))
    with pytest.raises(
        ValueError,
        match=r"`random_steps` must be at most timesteps. Received: random_steps=3 for "
        r"timesteps=2",
    ):
        model.fit(*data(), verbose=0)
    model.timesteps = 3
    model.fit(*data(), verbose=0)


@pytest.mark.parametrize(
    ("gradient", "step_mode"),
    [
        ("sltt", "single"),
        (SLTT(random_steps=2), "multi"),
        ("ottt", "multi"),
        ("ottt", "single"),
    ],
    ids=str,
)
def test_a_model_fits_and_is_saved_with_the_method(step_mode, gradient):
    """Four steps: a loop of the compiler in single-step mode. Ten samples: a last batch
    of two."""
    x, y = data()
    model = compiled(
        spiking(timesteps=4, gradient=gradient, step_mode=step_mode),
        keras.optimizers.Adam(0.05),
    )
    losses = model.fit(x, y, batch_size=4, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < 0.8 * losses[0]
    loaded = saved_and_loaded(model)
    assert repr(loaded.gradient) == repr(model.gradient)
    np.testing.assert_allclose(
        loaded.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-5, atol=1e-6
    )
    loaded.train_on_batch(x, y)


def test_a_callback_may_set_the_method_in_the_middle_of_training():
    x, y = data()
    model = compiled(spiking(timesteps=4))

    class Switch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.gradient = SLTT(random_steps=2)

    before = [to_numpy(variable) for variable in model.trainable_variables]
    model.fit(x, y, batch_size=4, epochs=2, verbose=0, callbacks=[Switch()])
    assert isinstance(model.gradient, SLTT)
    assert all(
        np.abs(old - to_numpy(new)).max() > 0
        for old, new in zip(before, model.trainable_variables, strict=True)
    )


@pytest.mark.parametrize("method", METHODS)
def test_half_precision_trains_with_weights_in_single_precision(method):
    keras.config.set_dtype_policy(
        "mixed_float16" if BACKEND == "torch" else "mixed_bfloat16"
    )
    x, y = data()
    inputs = keras.Input((6,))
    hidden = rsnn.layers.LIF()(layers.BatchNormalization()(layers.Dense(8)(inputs)))
    network = keras.Model(
        inputs, layers.Dense(3)(rsnn.layers.LIF()(layers.Dense(8)(hidden)))
    )
    model = spiking(network, 4, method, step_mode="single")
    _, gradients = loss_and_gradients(model, x, y)
    keras.config.set_dtype_policy("float32")
    _, kept = loss_and_gradients(
        rsnn.SpikingModel(
            network, 4, METHODS[method](recompute=False), step_mode="single"
        ),
        x,
        y,
    )
    for found, expected in zip(gradients.values(), kept.values(), strict=True):
        assert str(found.dtype) == "float32"
        np.testing.assert_allclose(found, expected, rtol=0.05, atol=2e-3)


@pytest.mark.parametrize("recompute", [True, False])
def test_inputs_have_the_gradient_of_all_steps(recompute):
    """An input with time, so that each step has its own frame."""
    x, _ = data(4, (5, 6))
    network = mlp()
    model = rsnn.SpikingModel(network, 5, SLTT(recompute=recompute), step_mode="single")
    (found,) = gradient_of(lambda frames: ops.sum(model(frames, training=True)), [x])
    multi = rsnn.SpikingModel(network, 5, "sltt")
    (expected,) = gradient_of(lambda frames: ops.sum(multi(frames, training=True)), [x])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_compiled_step_changes_weights_as_an_eager_one_does(method):
    x, y = data()
    inputs = keras.Input((6,))
    hidden = rsnn.layers.LIF()(layers.BatchNormalization()(layers.Dense(8)(inputs)))
    network = keras.Model(
        inputs, layers.Dense(3)(rsnn.layers.LIF()(layers.Dense(8)(hidden)))
    )
    weights = network.get_weights()

    def trained(**options):
        network.set_weights(weights)
        compiled(
            spiking(network, 5, method, step_mode="single"), **options
        ).train_on_batch(x, y)
        return network.get_weights()

    assert_close(
        trained(jit_compile=True), trained(run_eagerly=True), rtol=1e-4, atol=1e-6
    )
