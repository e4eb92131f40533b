"""Training on one device and on several, in processes of their own: `python
tests/replica_cases.py DEVICES FILE CASE...`.

On JAX and TensorFlow the process makes virtual devices. On PyTorch each of DEVICES
processes runs this program.
"""

import functools
import json
import os
import pathlib
import re
import sys
import warnings

import numpy as np
from keras_alone import imported_alone

BATCH = 8


def with_methods(cases):
    """The cases with the method and the step mode that their names begin with."""
    made = {}
    for name, options in cases.items():
        gradient, step_mode, *_ = name.split(", ")
        made[name] = {"gradient": gradient, "step_mode": step_mode, **options}
    return made


PADDED = {"padded": True, "timed": True, "samples": 2 * BATCH}
CASES = with_methods(
    {
        "rate, multi, attention and time mean": {
            "attention": True,
            "mean": True,
            "samples": 2 * BATCH + 5,
            "evaluated": True,
        },
        "rate, single, timed, quantised": {
            "timed": True,
            "weights": "int4",
            "samples": 2 * BATCH,
        },
        "sltt, single, online": {"online": True, "samples": 2 * BATCH},
        "rate, multi, dropout": {"rate": 0.3, "samples": 2 * BATCH},
        "rate, multi, padded": PADDED,
        "bptt, multi, padded, sequences": {
            **PADDED,
            "sequences": True,
            "samples": 2 * BATCH + 3,
        },
    }
)
OTHERS = [
    "noise",
    "mistakes",
    "batches of 7",
    "collectives",
    "silence",
    "padded evaluation",
]
MORE_CASES = with_methods(
    {
        "bptt that runs layers again, multi": {
            "samples": 2 * BATCH,
            "gradient": {
                "class_name": "keras_ratesnn>BPTT",
                "config": {"recompute": True},
            },
        },
        "bptt, multi, timed": {"timed": True, "samples": 2 * BATCH},
        "ottt, single": {"samples": 2 * BATCH + 3},
        "bptt, single": {"samples": 2 * BATCH + 5},
        "sltt, single, time mean": {
            "mean": True,
            "timed": True,
            "samples": 2 * BATCH,
        },
        "rate, multi, online": {"online": True, "samples": 2 * BATCH + 3},
        "rate, single, padded": PADDED,
        "sltt at a random step, single, padded": {
            **PADDED,
            "gradient": {
                "class_name": "keras_ratesnn>SLTT",
                "config": {"random_steps": 1},
            },
        },
    }
)
PADDING = -9.0
STEPS = {False: 2, True: 3}
"""The number of time steps, without and with padding."""


def squared_error(y, outputs):
    """In float64 on each backend, unlike Keras' own losses."""
    from keras import ops

    return ops.sum(ops.square(ops.cast(y, outputs.dtype) - outputs), axis=-1)


def model_of(
    gradient,
    step_mode,
    rate=0.0,
    online=False,
    mean=False,
    padded=False,
    attention=False,
    weights=None,
    sequences=False,
    **_,
):
    import keras
    from keras import layers

    import keras_ratesnn as rsnn
    from keras_ratesnn.layers.firing_rate_scale import FiringRateScale

    normalization = (
        rsnn.layers.OnlineRenormalization if online else layers.BatchNormalization
    )
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 2))
    if padded:
        return compiled(
            neurons_with_time(inputs),
            gradient,
            step_mode,
            STEPS[True],
            mask_value=PADDING,
            return_sequences=sequences,
        )
    x = normalization(momentum=0.9)(
        layers.Conv2D(3, 3, padding="same", use_bias=False)(inputs)
    )
    x = rsnn.layers.LIF(
        threshold_stabilizer=online and gradient != "rate",
        activity_regularizer=None if online else keras.regularizers.L2(0.1),
    )(x)
    if rate:
        x = layers.Dropout(rate, seed=1)(x)
    if attention:
        neuron = functools.partial(rsnn.layers.LIF, threshold=0.3)
        x = neuron()(layers.Conv2D(4, 1)(x))
        x = layers.Add()(
            [
                x,
                rsnn.models.spiking_self_attention(
                    x, 2, neuron=neuron, attention_neuron=neuron
                ),
            ]
        )
        x = layers.Multiply()([x, FiringRateScale(momentum=0.9)(x)])
    if mean:
        x = rsnn.layers.TimeMean()(x)
    x = normalization(momentum=0.9)(layers.Conv2D(4, 3, strides=2, use_bias=False)(x))
    # Keras multiplies matrices in float32 on PyTorch, but convolves in float64
    # (docs/upstream.md, float64).
    x = layers.ReLU()(x) if mean else rsnn.layers.LIF()(x)
    network = keras.Model(inputs, layers.Flatten()(layers.Conv2D(3, 2)(x)))
    if weights is not None:
        network = rsnn.deploy.quantize_aware(
            rsnn.SpikingModel(network, STEPS[False]), weights
        ).network
    return compiled(network, gradient, step_mode, STEPS[False])


def neurons_with_time(inputs):
    """A network of a delay, parallel neurons and recurrent ones."""
    import keras
    from keras import layers

    import keras_ratesnn as rsnn

    x = layers.Conv2D(3, 3, padding="same", use_bias=False)(
        rsnn.layers.Delay(3)(inputs)
    )
    x = rsnn.layers.SlidingPSN(2, activity_regularizer="l2")(
        layers.BatchNormalization(momentum=0.9)(x)
    )
    x = layers.BatchNormalization(momentum=0.9)(
        layers.Conv2D(4, 3, strides=2, use_bias=False)(x)
    )
    x = rsnn.layers.Recurrent(rsnn.layers.LIF(), layers.Conv2D(4, 3, padding="same"))(x)
    x = rsnn.layers.MaskedPSN(3, order=2)(layers.Conv2D(3, 2)(x))
    return keras.Model(inputs, layers.Flatten()(layers.Conv2D(3, 1)(x)))


def compiled(network, gradient, step_mode, timesteps, **arguments):
    import keras

    import keras_ratesnn as rsnn

    model = rsnn.SpikingModel(
        network,
        timesteps=timesteps,
        gradient=gradient,
        step_mode=step_mode,
        **arguments,
    )
    model.compile(
        keras.optimizers.SGD(0.05, momentum=0.9),
        squared_error,
        metrics=["categorical_accuracy"],
    )
    return model


def data_of(samples, timed=False, padded=False, sequences=False, **_):
    random = np.random.default_rng(0)
    timesteps = STEPS[padded]
    x = random.normal(
        size=(samples, timesteps, 6, 6, 2) if timed else (samples, 6, 6, 2)
    )
    if padded:
        # The devices have other numbers of steps.
        x[np.arange(timesteps) >= 1 + np.arange(samples)[:, None] // 3 % timesteps] = (
            PADDING
        )
    labels = random.integers(0, 3, (samples, timesteps) if sequences else samples)
    return x, np.eye(3)[labels], random.uniform(0.5, 1.5, labels.shape)


def trained(case, replica=0, replicas=1):
    """What a model is after two epochs: a dictionary of weights, the history, and
    predictions if it is evaluated.

    Args:
        case: A value of `CASES`.
        replica: Integer, the number of this process on PyTorch.
        replicas: Integer, the number of processes.
    """
    import keras

    model = model_of(**case)
    x, y, weights = data_of(**case)
    parts = [
        np.array_split(np.arange(start, min(start + BATCH, len(x))), replicas)[replica]
        for start in range(0, len(x), BATCH)
    ]

    class Part(keras.utils.PyDataset):
        def __len__(self):
            return len(parts)

        def __getitem__(self, index):
            return x[parts[index]], y[parts[index]], weights[parts[index]]

    evaluated = case.get("evaluated", False)
    validation = (x[replica::replicas], y[replica::replicas]) if evaluated else None
    history = model.fit(
        Part(), epochs=2, shuffle=False, verbose=0, validation_data=validation
    )
    variables = {
        f"{index} {variable.name}": variable.numpy().tolist()
        for index, variable in enumerate(model.variables)
    }
    predictions = model.predict(x, verbose=0).tolist() if evaluated else None
    return {
        "variables": variables,
        "history": history.history,
        "predictions": predictions,
    }


def noise(replica, replicas):
    """What an encoder draws for equal inputs on each replica, twice with the same seed:
    `(2, batch, features)`."""
    import keras

    import keras_ratesnn as rsnn

    drawn = []
    for _ in range(2):
        inputs = keras.Input((64,))
        encoded = rsnn.layers.IF()(rsnn.layers.BernoulliEncoder(seed=1)(inputs))
        model = rsnn.SpikingModel(keras.Model(inputs, encoded), timesteps=1)
        drawn.append(
            model.predict(
                np.full((BATCH // replicas if replica is not None else BATCH, 64), 0.5),
                verbose=0,
            ).tolist()
        )
    return drawn


def mistakes(replica):
    """The messages of errors where processes could not train together, and weights
    after steps without `fit`."""
    import keras
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    x, y, _ = data_of(BATCH)

    def message(function):
        try:
            function()
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return "no error"

    model = model_of("rate", "multi")
    inputs = keras.Input((6, 6, 2))
    outer = keras.Model(
        inputs, keras.layers.Dense(3)(model_of("rate", "multi")(inputs))
    )
    outer.compile("sgd", "mse")
    found = {
        "batches": message(
            lambda: model.fit(
                x[: BATCH - replica], y[: BATCH - replica], batch_size=1, verbose=0
            )
        ),
        "epochs": message(lambda: model.fit(x, y, epochs=1 + replica, verbose=0)),
        "outer": message(lambda: outer.train_on_batch(x, y)),
    }
    sharded = model_of("rate", "multi")
    fully_shard(sharded, mesh=init_device_mesh("cpu", (2,)))
    found["sharded"] = message(lambda: sharded.fit(x, y, verbose=0))
    model.set_weights([weight + replica for weight in model.get_weights()])
    model.train_on_batch(x, y)
    found["kernel"] = model.variables[0].numpy().tolist()
    return found


def silence(replica):
    """What `fit` warns of where a layer never spikes, and another one for a half of the
    samples: those of one process.

    The first process has as many samples in its first batch as are looked at, the other
    one fewer.
    """
    import keras

    import keras_ratesnn as rsnn

    inputs = keras.Input((4,))
    x = rsnn.layers.LIF(threshold=0.5, name="of a half")(
        keras.layers.Dense(5, kernel_initializer="ones")(inputs)
    )
    x = rsnn.layers.LIF(threshold=1e6, name="silent")(
        keras.layers.BatchNormalization()(keras.layers.Dense(5)(x))
    )
    model = compiled(keras.Model(inputs, keras.layers.Dense(3)(x)), "rate", "multi", 2)
    samples, part = np.repeat([[1.0] * 4, [0.0] * 4], 40, axis=0), slice(None)
    if replica is None:
        samples = samples[20:60]
    else:
        part = slice(40 * replica, 40 * (replica + 1))
    batch_size = 40 if replica is None else 32 - replica
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        x = samples[part]
        model.fit(
            x,
            np.zeros((len(x), 3)),
            batch_size=batch_size,
            epochs=2,
            shuffle=False,
            verbose=0,
        )
    return [
        str(each.message)
        for each in found
        if "spikes after the first epoch" in str(each.message)
    ]


def in_batches_of_7():
    """Losses and predictions where two devices cannot share a batch equally."""
    model = model_of("rate", "multi")
    x, y, _ = data_of(17)
    losses = model.fit(
        x,
        y,
        batch_size=7,
        epochs=2,
        shuffle=False,
        verbose=0,
        validation_data=(x[:7], y[:7]),
    ).history["loss"]
    score, _ = model.evaluate(x[:9], y[:9], batch_size=4, verbose=0)
    return [
        *losses,
        score,
        *model.predict(x, batch_size=7, verbose=0).reshape(-1).tolist(),
    ]


def padded_evaluation():
    """The loss of sequences of which each has another length."""
    import keras

    import keras_ratesnn as rsnn

    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    network = keras.Model(
        inputs, keras.layers.Dense(3)(rsnn.layers.LIF(threshold=0.3)(inputs))
    )
    model = compiled(
        network, "rate", "multi", 4, mask_value=PADDING, return_sequences=True
    )
    x = np.random.default_rng(0).normal(size=(7, 4, 4))
    for sample, length in zip(x, (4, 1, 2, 3, 1, 4, 2), strict=True):
        sample[length:] = PADDING
    return model.evaluate(x, np.ones((7, 4, 3)), batch_size=6, verbose=0)[0]


def collectives():
    """The names of the operations by which devices communicate in a training step on
    JAX, from its compiled program."""
    import jax
    import keras

    model = model_of("rate", "multi")
    x, y, _ = data_of(BATCH)
    model.fit(x, y, batch_size=BATCH, verbose=0)
    variables = (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )
    state = [[variable.value for variable in some] for some in variables]
    layout = keras.distribution.distribution().get_data_layout
    batch = [
        jax.device_put(array, layout(array.shape).backend_layout) for array in (x, y)
    ]
    program = jax.jit(model.train_step).lower(state, (*batch, None)).compile().as_text()
    return sorted(
        set(
            re.findall(
                r" ((?:all|collective)-[a-z-]+?|reduce-scatter)(?:-start)?\(", program
            )
        )
    )


def main(devices, file, *names):
    devices, backend = int(devices), os.environ["KERAS_BACKEND"]
    replica, replicas = None, 1
    if backend == "jax":
        import jax

        jax.config.update("jax_num_cpu_devices", devices)
        jax.config.update("jax_enable_x64", True)
    keras = imported_alone(backend)
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    if backend == "jax":
        scope = keras.distribution.DataParallel().scope()
    elif backend == "tensorflow":
        import tensorflow as tf

        virtual = [tf.config.LogicalDeviceConfiguration()] * devices
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0], virtual
        )
        scope = tf.distribute.MirroredStrategy(
            [f"CPU:{index}" for index in range(devices)]
        ).scope()
    else:
        from torch import distributed

        import keras_ratesnn as rsnn

        distributed.init_process_group("gloo")
        replica, replicas = distributed.get_rank(), devices
        # Most steps are those of a recorded graph.
        scope = rsnn.engine_settings(eager_calls={"auto": 1, True: 1})
    with scope:
        cases = {**CASES, **MORE_CASES}
        results = {
            name: trained(cases[name], replica or 0, replicas)
            for name in names
            if name in cases
        }
        if "noise" in names:
            results["noise"] = noise(replica, replicas)
        if "mistakes" in names and backend == "torch":
            results["mistakes"] = mistakes(replica)
        if "silence" in names:
            results["silence"] = silence(replica)
        if "batches of 7" in names and backend == "jax":
            results["batches of 7"] = in_batches_of_7()
        if "padded evaluation" in names and backend != "torch":
            results["padded evaluation"] = padded_evaluation()
        if "collectives" in names and backend == "jax":
            results["collectives"] = collectives()
    pathlib.Path(f"{file}.{replica or 0}").write_text(json.dumps(results))
    if backend == "torch":
        distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
