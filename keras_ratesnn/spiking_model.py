"""SpikingModel: a network of one time step, run through time, as a Keras model."""

import keras
import numpy as np
from keras import ops

from keras_ratesnn import checks, gradients, graph, registry

STEP_MODES = ("multi",)


@registry.register
class SpikingModel(keras.Model):
    """Runs an ordinary Keras network of one time step through time, and chooses how its gradient is found.

    It is a Keras model: `compile`, `fit`, `evaluate`, `predict`, `save` work as usual. Its output is the time mean of the
    network's output, and a loss is taken of that mean.

    An input may be given

    * without time, `(batch, ...)`: the network sees the same input at every step, and the layers before the first
      neurons are computed once;
    * with time, `(batch, timesteps, ...)`: one frame a step.

    Example:

    >>> network = keras.Sequential([
    ...     keras.Input((28, 28, 1)),
    ...     keras.layers.Conv2D(8, 3, use_bias=False),
    ...     keras.layers.BatchNormalization(),
    ...     keras_ratesnn.layers.LIF(),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(10),
    ... ])
    >>> model = keras_ratesnn.SpikingModel(network, timesteps=4)
    >>> model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    >>> images, labels = np.random.rand(32, 28, 28, 1), np.random.randint(0, 10, 32)
    >>> history = model.fit(images, labels, verbose=0)
    >>> model.predict(images, verbose=0).shape
    (32, 10)

    Args:
        network: A Functional or Sequential Keras model of one time step with neuron layers, for example
            `keras_ratesnn.layers.LIF`, as its activations. Its weights are shared, not copied.
        timesteps: Integer T >= 1, the number of time steps. It can be set to another value later.
        gradient: How the gradient is found: `"rate"` (rate-based backpropagation: a backward pass that does not grow
            with T), `"bptt"` (backpropagation through time), or a `GradientMethod`. Defaults to `"rate"`.
        step_mode: `"multi"`: a layer sees all time steps at once. Defaults to `"multi"`.
        return_sequences: Boolean, whether the output is that of every step, `(batch, timesteps, ...)`, in the place of
            the time mean. Such a model predicts with any gradient and trains with `gradient="bptt"`. Defaults to `False`.
        **kwargs: `name`, `dtype`, `trainable` of a Keras model. `dtype` defaults to the network's.

    Raises:
        TypeError: If `network` is not Functional or Sequential, or an argument is of another type.
        ValueError: If the network has no neurons or hides some inside other layers, `timesteps` is not >= 1, or a name is
            unknown.

    Source: Yu et al., "Advancing Training Efficiency of Deep Spiking Neural Networks through Rate-based
    Backpropagation", NeurIPS 2024.
    """

    def __init__(self, network, timesteps, gradient="rate", step_mode="multi", return_sequences=False, **kwargs):
        functional = graph.as_graph(network)
        graph.check_neurons(functional)
        kwargs.setdefault("dtype", network.dtype_policy)
        super().__init__(**kwargs)
        self.network = network
        self._timesteps = _checked_timesteps(timesteps)
        self.gradient = gradients.get(gradient)
        self.step_mode = checks.one_of("step_mode", step_mode, STEP_MODES)
        self._return_sequences = checks.boolean("return_sequences", return_sequences)
        # The network's variables exist: there is nothing to build, whatever shape comes first.
        self.built = True

    @property
    def timesteps(self):
        """The number of time steps T. Set it to run the same weights for longer or shorter."""
        return self._timesteps

    @timesteps.setter
    def timesteps(self, value):
        self._timesteps = _checked_timesteps(value)
        graph.reset_compiled_functions(self)

    @property
    def return_sequences(self):
        """Whether the output is that of every step. Set it to read every step of a trained model."""
        return self._return_sequences

    @return_sequences.setter
    def return_sequences(self, value):
        self._return_sequences = checks.boolean("return_sequences", value)
        graph.reset_compiled_functions(self)

    def call(self, inputs, training=None):
        training = bool(training)
        if training and self.return_sequences and not self.gradient.trains_sequences:
            raise ValueError(
                "`return_sequences=True` gives a loss every step's output, and gradient="
                f"{self.gradient!r} knows the gradient of their time mean only. Received: return_sequences=True in training. "
                'Train with return_sequences=False, or with gradient="bptt".'
            )
        functional = graph.as_graph(self.network)
        rule = self.gradient.multi_step(self.timesteps, training)
        signals = []
        for tensor, reference in zip(graph.match_inputs(functional, inputs), functional.inputs, strict=True):
            has_time = self._has_time(tensor, reference)
            signals.append(rule.begin(ops.cast(tensor, reference.dtype), has_time))
        outputs = graph.walk(functional, signals, rule, training)
        read = rule.sequence if self.return_sequences else rule.mean
        return keras.tree.map_structure(read, outputs)

    def compute_output_spec(self, inputs, training=None):
        functional = graph.as_graph(self.network)
        flat = graph.match_inputs(functional, inputs)
        for tensor, reference in zip(flat, functional.inputs, strict=True):
            self._has_time(tensor, reference)

        def spec(output):
            time = (self.timesteps,) if self.return_sequences else ()
            return keras.KerasTensor((flat[0].shape[0], *time, *output.shape[1:]), dtype=output.dtype)

        return keras.tree.map_structure(spec, graph.outputs_of(functional))

    def fit(self, *args, **kwargs):
        self._check_weights()
        return super().fit(*args, **kwargs)

    def summary(self, *args, **kwargs):
        kwargs.setdefault("expand_nested", True)
        return super().summary(*args, **kwargs)

    def get_config(self):
        return {
            **super().get_config(),
            "network": keras.saving.serialize_keras_object(self.network),
            "timesteps": self.timesteps,
            "gradient": registry.serialize(self.gradient),
            "step_mode": self.step_mode,
            "return_sequences": self.return_sequences,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        network = keras.saving.deserialize_keras_object(config["network"], custom_objects=custom_objects)
        return cls(**{**config, "network": network})

    def _has_time(self, tensor, reference):
        """Whether an input `(batch, ...)` of the network came with a time axis; ValueError if neither shape fits."""
        wanted = tuple(reference.shape[1:])
        received = tuple(tensor.shape[1:])
        if _fits(received, wanted):
            return False
        if _fits(received, (self.timesteps, *wanted)):
            return True
        with_time = ", ".join(str(size) for size in ("batch", self.timesteps, *wanted))
        without_time = ", ".join(str(size) for size in ("batch", *wanted))
        raise ValueError(
            f"Input {reference.name!r} of the network must have shape ({without_time}), the same at every step, or "
            f"({with_time}), one frame for each of timesteps={self.timesteps}. Received: shape {tuple(tensor.shape)}."
        )

    def _check_weights(self):
        """NaN weights would not show in the spikes of a comparison; they are found here, before a run is spent on them."""
        broken = []
        for variable in self.variables:
            value = ops.convert_to_numpy(variable)
            if np.issubdtype(value.dtype, np.floating) and not np.isfinite(value).all():
                broken.append(variable.path)
        if broken:
            raise ValueError(
                f"The model has weights that are NaN or infinite: {broken}. Load or initialise them again; if training "
                "made them so, lower the learning rate or set clipnorm in the optimizer. "
                "keras.callbacks.TerminateOnNaN() stops a run as soon as its loss is NaN."
            )


def _checked_timesteps(value):
    return checks.positive_integer("timesteps", value, advice="It is the number of time steps that the network runs for.")


def _fits(shape, wanted):
    return len(shape) == len(wanted) and all(b is None or a is None or a == b for a, b in zip(shape, wanted, strict=True))
