"""SpikingModel: a network of one time step, run through time, as a Keras model."""

import contextlib
import functools
import inspect

import keras
import numpy as np
from keras import ops

from keras_ratesnn import _graph, gradients
from keras_ratesnn._core import backend, checks, keras_internals, registry
from keras_ratesnn._streaming import Stream
from keras_ratesnn.gradients.base import Run

STEP_MODES = ("multi", "single")


def _noticing_ranks(method):
    """A training or inference method that lets the model look at the ranks of its inputs first."""

    @functools.wraps(method)
    def noticing(self, x=None, *args, **kwargs):
        self._notice_ranks(x)
        return method(self, x, *args, **kwargs)

    return noticing


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
        step_mode: `"multi"`: a layer sees all time steps at once, which is fastest. `"single"`: the network advances one
            step at a time, and with `gradient="rate"` nothing of size T is ever kept. Batch normalisation then takes the
            statistics of each step by itself. Defaults to `"multi"`.
        return_sequences: Boolean, whether the output is that of every step, `(batch, timesteps, ...)`, in the place of
            the time mean. A loss of every step then trains with any gradient; `"rate"` gives all steps the derivative of
            the rate. Defaults to `False`.
        **kwargs: `name`, `dtype`, `trainable` of a Keras model. `dtype` defaults to the network's.

    Raises:
        TypeError: If `network` is not Functional or Sequential, or an argument is of another type.
        ValueError: If the network has no neurons or hides some inside other layers, `timesteps` is not >= 1, or a name is
            unknown.

    Source: Yu et al., "Advancing Training Efficiency of Deep Spiking Neural Networks through Rate-based
    Backpropagation", NeurIPS 2024.
    """

    def __init__(self, network, timesteps, gradient="rate", step_mode="multi", return_sequences=False, **kwargs):
        functional = _graph.as_graph(network)
        _graph.check_neurons(functional)
        kwargs.setdefault("dtype", network.dtype_policy)
        super().__init__(**kwargs)
        self.network = network
        self._timesteps = _checked_timesteps(timesteps)
        self.gradient = gradients.get(gradient)
        self.gradient.check(_graph.neurons_of(functional))
        self.step_mode = checks.one_of("step_mode", step_mode, STEP_MODES)
        self._return_sequences = checks.boolean("return_sequences", return_sequences)
        self._stream = Stream()
        self._ranks = None
        self._predicting = False
        self._asked_jit_compile = "auto"
        # The network's variables exist: there is nothing to build, whatever shape comes first.
        self.built = True

    @property
    def timesteps(self):
        """The number of time steps T. Set it to run the same weights for longer or shorter."""
        return self._timesteps

    @timesteps.setter
    def timesteps(self, value):
        self._timesteps = _checked_timesteps(value)
        keras_internals.forget_compiled_functions(self)

    @property
    def return_sequences(self):
        """Whether the output is that of every step. Set it to read every step of a trained model."""
        return self._return_sequences

    @return_sequences.setter
    def return_sequences(self, value):
        self._return_sequences = checks.boolean("return_sequences", value)
        keras_internals.forget_compiled_functions(self)

    def call(self, inputs, training=None):
        training = bool(training)
        functional = _graph.as_graph(self.network)
        pairs = zip(_graph.match_inputs(functional, inputs), functional.inputs, strict=True)
        run = Run(
            walk=lambda signals, rule: _graph.walk(functional, signals, rule, training),
            inputs=[(ops.cast(tensor, wanted.dtype), self._has_time(tensor, wanted)) for tensor, wanted in pairs],
            timesteps=self.timesteps,
            step_mode=self.step_mode,
            training=training,
            with_gradient=backend.grad_enabled() and not self._predicting,
            return_sequences=self.return_sequences,
            network=functional,
        )
        return self._through_time(run)

    @backend.untraced
    def _through_time(self, run):
        with backend.fusing(self._asked_jit_compile is not False):
            return self.gradient.call(run)

    @contextlib.contextmanager
    def _without_gradient(self):
        """Where Keras asks for outputs that nobody will differentiate."""
        before, self._predicting = self._predicting, True
        try:
            yield
        finally:
            self._predicting = before

    def test_step(self, *args, **kwargs):
        with self._without_gradient():
            return super().test_step(*args, **kwargs)

    def predict_step(self, *args, **kwargs):
        with self._without_gradient():
            return super().predict_step(*args, **kwargs)

    def compute_output_spec(self, inputs, training=None):
        functional = _graph.as_graph(self.network)
        flat = _graph.match_inputs(functional, inputs)
        for tensor, reference in zip(flat, functional.inputs, strict=True):
            self._has_time(tensor, reference)

        def spec(output):
            time = (self.timesteps,) if self.return_sequences else ()
            return keras.KerasTensor((flat[0].shape[0], *time, *output.shape[1:]), dtype=output.dtype)

        return keras.tree.map_structure(spec, keras_internals.outputs_structure(functional))

    def step(self, inputs):
        """Advances a sequence in progress by one time step, as in inference: for input that comes step by step.

        Membranes are kept between calls; the outputs of T calls are those that one call on the whole sequence gives with
        `return_sequences=True`. A sequence may be longer than `timesteps`. `reset_state` begins a new one.

        Example:

        >>> inputs = keras.Input((2,))
        >>> model = keras_ratesnn.SpikingModel(keras.Model(inputs, keras_ratesnn.layers.IF()(inputs)), timesteps=4)
        >>> for t in range(3):
        ...     print(ops.convert_to_numpy(model.step(np.array([[0.5, 1.0]]))))
        [[0. 1.]]
        [[1. 1.]]
        [[0. 1.]]
        >>> model.reset_state()

        Args:
            inputs: Tensor `(batch, ...)`, or a structure of tensors as the network takes it: one step, without time.

        Returns:
            The network's output at this step.

        Raises:
            ValueError: If the inputs do not fit the network, or the batch size is not that of the steps before.
        """
        functional = _graph.as_graph(self.network)
        tensors = []
        for tensor, wanted in zip(_graph.match_inputs(functional, inputs), functional.inputs, strict=True):
            tensor = ops.convert_to_tensor(tensor, dtype=wanted.dtype)
            if not _fits(tensor.shape[1:], wanted.shape[1:]):
                raise ValueError(
                    f"Input {wanted.name!r} of the network must have shape {_described(wanted.shape[1:])} in `step`, without "
                    f"time. Received: shape {tuple(tensor.shape)}."
                )
            tensors.append(tensor)
        return self._stream.advance(
            lambda signals, rule: _graph.walk(functional, signals, rule, training=False), tensors, self.timesteps
        )

    def reset_state(self):
        """Ends the sequence that `step` has in progress: the next step begins at rest, with any batch size."""
        self._stream.reset()

    def fit(self, x=None, *args, **kwargs):
        self._check_weights()
        self._notice_ranks(x)
        return super().fit(x, *args, **kwargs)

    evaluate = _noticing_ranks(keras.Model.evaluate)
    predict = _noticing_ranks(keras.Model.predict)
    train_on_batch = _noticing_ranks(keras.Model.train_on_batch)
    test_on_batch = _noticing_ranks(keras.Model.test_on_batch)
    predict_on_batch = _noticing_ranks(keras.Model.predict_on_batch)

    def _notice_ranks(self, x):
        """TensorFlow traces one function for all inputs, and one of two ranks, with time and without, it cannot."""
        ranks = [len(array.shape) for array in keras.tree.flatten(x) if hasattr(array, "shape")]
        if ranks != self._ranks:
            self._ranks = ranks
            keras_internals.forget_compiled_functions(self)

    def export(self, filepath, format="tf_saved_model", verbose=None, input_signature=None, **kwargs):
        """Exports the inference graph, as `keras.Model.export` does.

        Args:
            filepath: String or path, where to write.
            format: `"tf_saved_model"`, `"onnx"` or another that Keras knows on this backend.
                Defaults to `"tf_saved_model"`.
            verbose: Boolean, whether to print a message. Defaults to `None`: Keras' choice.
            input_signature: List of `keras.InputSpec`. Defaults to the network's inputs without time; give
                `[keras.InputSpec(shape=(None, timesteps, ...), dtype="float32")]` to export for one frame a step.
            **kwargs: As in `keras.Model.export`.
        """
        if input_signature is None:
            inputs = keras_internals.inputs_structure(_graph.as_graph(self.network))
            spec = keras.tree.map_structure(lambda x: keras.InputSpec(shape=x.shape, dtype=x.dtype, name=x.name), inputs)
            input_signature = spec if isinstance(spec, list) and len(spec) == 1 else [spec]
        with self._without_gradient(), backend.no_gradient():
            return super().export(filepath, format, verbose, input_signature, **kwargs)

    def compile(self, *args, **kwargs):
        """As `keras.Model.compile`; on PyTorch `jit_compile` has one more meaning.

        There Keras takes `"auto"`, its default, for `False`: operations run one by one. In a SpikingModel the passes of large
        layers of neurons through time are compiled all the same, once, by the C++ compiler or Triton; without one they run one
        operation at a time, after a warning. `jit_compile=False` and `run_eagerly=True` compile nothing; `jit_compile=True`
        compiles what is around the network, too, and leaves the walk through time as it is.
        """
        super().compile(*args, **kwargs)
        asked = inspect.signature(super().compile).bind(*args, **kwargs)
        asked.apply_defaults()
        self._asked_jit_compile = False if asked.arguments["run_eagerly"] else asked.arguments["jit_compile"]

    def get_compile_config(self):
        config = keras_internals.portable(super().get_compile_config())
        # Keras notes what "auto" came to on this backend, and on another it may come to something else.
        return config and {**config, "jit_compile": self._asked_jit_compile}

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

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
        if getattr(tensor.shape, "rank", len(reference.shape)) is None:
            raise ValueError(
                f"Input {reference.name!r} of the network has an unknown rank. TensorFlow traces one function for all inputs "
                "of a compiled model, and this one has been given inputs with time and without. Call model.compile() again "
                "between the two."
            )
        wanted = tuple(reference.shape[1:])
        received = tuple(tensor.shape[1:])
        if _fits(received, wanted):
            return False
        if _fits(received, (self.timesteps, *wanted)):
            return True
        raise ValueError(
            f"Input {reference.name!r} of the network must have shape {_described(wanted)}, the same at every step, or "
            f"{_described((self.timesteps, *wanted))}, one frame for each of timesteps={self.timesteps}. Received: shape "
            f"{tuple(tensor.shape)}."
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


def _described(shape):
    return "(" + ", ".join(str(size) for size in ("batch", *shape)) + ")"
