"""SpikingModel: a Keras model that runs a network of one time step over time."""

import contextvars
import functools
import os
import weakref
from typing import Any

import keras

from keras_ratesnn import _graph
from keras_ratesnn._core import backend, checks, keras_internals, registry
from keras_ratesnn._core.annotations import Config, StepModeName, Structure, Tensor
from keras_ratesnn._core.contexts import setting
from keras_ratesnn._model import (
    export_formats,
    layer_configs,
    loss_checks,
    model_files,
    quantization,
    replicas,
)
from keras_ratesnn._model.call_inputs import call_inputs, starting_at
from keras_ratesnn._model.fit_callbacks import around_fit, in_order
from keras_ratesnn._model.functional_attributes import FunctionalAttributes
from keras_ratesnn._model.input_checks import (
    check_data,
    check_inputs,
    inputs_with_time,
    match,
    one_step,
    warn_of_time_in_a_step,
)
from keras_ratesnn._model.method_calls import (
    outputs_of_run,
    run_method,
)
from keras_ratesnn._model.preflight import (
    preflight,
    run_by_keras,
    warn_once,
    with_preflight,
)
from keras_ratesnn._model.settings import STEP_MODES as STEP_MODES
from keras_ratesnn._model.settings import Settings
from keras_ratesnn._model.silent_layers import warning_of_silence
from keras_ratesnn._model.streaming import Stream, step_of
from keras_ratesnn._model.time_masks import check_some_steps_count
from keras_ratesnn._model.trainer import Trainer
from keras_ratesnn._model.undifferentiated import is_undifferentiated, undifferentiated
from keras_ratesnn.gradients import GradientMethod
from keras_ratesnn.gradients.run import Run

_in_step = contextvars.ContextVar("keras_ratesnn_in_step", default=False)
_added_losses: contextvars.ContextVar[Any] = contextvars.ContextVar(
    "keras_ratesnn_added_losses", default=(None, None)
)
"""A model, and the losses that its layers have added in this thread: replicas of
TensorFlow are threads, which take turns whenever they exchange numbers."""


@registry.register
class SpikingModel(
    Settings,
    Trainer,
    keras_internals.CollectsVariablesOnce,
    FunctionalAttributes,
    keras.Model,
):
    """Runs an ordinary Keras network of one time step over time, with a choice of
    training methods.

    It is a Keras model: `compile`, `fit`, `evaluate`, `predict`, `save` work as usual.
    Its output is the time mean of the network's output, and the loss is a function of
    that mean; `return_sequences` changes this.

    An input may be given

    * without time, `(batch, ...)`: the network sees the same input at every step, and
      the layers before the first neurons are computed once;
    * with time, `(batch, timesteps, ...)`: one frame per step.

    Sequences of unequal length are padded to `timesteps`, and the padding is masked: by
    `model(x, mask=mask)`, by a `keras.layers.Masking` before the model, or by
    `mask_value`. Neurons keep their state in padding and do not spike, and every mean
    runs over the other steps. What is in the padding does not matter.

    Example:

    >>> network = keras.Sequential(
    ...     [
    ...         keras.Input((28, 28, 1)),
    ...         keras.layers.Conv2D(8, 3, use_bias=False),
    ...         keras.layers.BatchNormalization(),
    ...         keras_ratesnn.layers.LIF(),
    ...         keras.layers.GlobalAveragePooling2D(),
    ...         keras.layers.Dense(10),
    ...     ]
    ... )
    >>> model = keras_ratesnn.SpikingModel(network, timesteps=4)
    >>> model.compile(
    ...     "sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    ... )
    >>> images, labels = np.random.rand(32, 28, 28, 1), np.random.randint(0, 10, 32)
    >>> history = model.fit(images, labels, verbose=0)
    >>> model.predict(images, verbose=0).shape
    (32, 10)

    Args:
        network: A Functional or Sequential Keras model of one time step with neuron
            layers, for example `keras_ratesnn.layers.LIF`, as its activations. Its
            weights are shared, not copied.
        timesteps: Integer T >= 1, the number of time steps. It can be changed later.
        gradient: The training method: `"rate"` (rate-based backpropagation: a backward
            pass that does not grow with T), `"bptt"` (backpropagation through time),
            `"sltt"` or `"ottt"` (no gradient between time steps), or a
            `GradientMethod`. Defaults to `"rate"`.
        step_mode: `"multi"`: a layer sees all time steps at once. `"single"`: the
            network advances one step at a time. Memory then does not grow with T,
            except with `gradient="bptt"`, and batch normalisation uses separate
            statistics for each step. Defaults to `"multi"`.
        return_sequences: Boolean, whether the output is that of every step, `(batch,
            timesteps, ...)`, instead of the time mean. A loss on every step works with
            any training method; `"rate"` gives all steps the derivative of the rate.
            Defaults to `False`.
        mask_value: A number, possibly NaN: a time step of an input with time is padding
            if all of its elements have this value, as the dtype of the data holds it;
            data that cannot hold it are an error. Defaults to `None`: only a mask says
            what is padding.
        **kwargs: `name`, `dtype`, `trainable` of a Keras model. `dtype` defaults to
            that of the network.

    Call arguments:
        inputs: Tensor, or a structure of tensors: the inputs of the network, with or
            without time.
        training: Boolean, whether layers behave as in training. Defaults to `None`,
            inference.
        mask: Boolean tensor, false for padding: `(batch, timesteps)` for an input with
            time, `(batch, timesteps, rows)` if rows of a step can be masked, too,
            `(batch, rows)` for an input without time; or such masks, or `None`, in a
            structure like the inputs. A sample that is all padding has the output 0.
            Defaults to `None`: the masks that Keras layers have put on the inputs.

    Raises:
        TypeError: If `network` is not Functional or Sequential, or an argument has the
            wrong type.
        ValueError: If the network has no neurons, hides neurons inside other layers or
            masks time steps, `timesteps` is not >= 1, or a name is unknown.

    Source: Yu et al., "Advancing Training Efficiency of Deep Spiking Neural Networks
    through Rate-based Backpropagation", NeurIPS 2024.
    """

    def __init__(
        self,
        network: keras.Model,
        timesteps: int,
        gradient: str | GradientMethod | Config = "rate",
        step_mode: StepModeName = "multi",
        return_sequences: bool = False,
        mask_value: float | None = None,
        **kwargs: Any,
    ) -> None:
        functional = _graph.as_graph(network)
        _graph.check_network(functional)
        kwargs.setdefault("dtype", network.dtype_policy)
        # Of the config alone: inputs that had time when the model was last trained, or
        # else first called.
        timed = kwargs.pop("inputs_with_time", None)
        super().__init__(**kwargs)
        self._inputs_with_time = None if timed is None else tuple(timed)
        self._checked_network = weakref.ref(functional)
        keras_internals.take_inputs_unchanged(self)
        self.network = network
        self._draws = None
        self._named_methods: dict[str, GradientMethod] = {}
        self.timesteps = timesteps
        self.gradient = gradient
        self.step_mode = step_mode
        self.return_sequences = return_sequences
        self.mask_value = mask_value
        warn_of_time_in_a_step(self)
        self._stream = Stream()
        self._graphs = backend.engine.call_graphs()
        self._shares_weights = False
        # Functions of checks that have warned: each does so once.
        self._told: set[Any] = set()
        # The network's variables exist: there is nothing to build.
        self.built = True

    @property
    def execution(self) -> str:
        """The runner of calls: on PyTorch `"eager"` (no graph yet), `"recorded"` or
        `"compiled"` graphs; elsewhere `"keras"`."""
        return self._graphs.execution

    def call(
        self, inputs: Structure, training: bool | None = None, mask: Structure = None
    ) -> Structure:
        training = bool(training)
        functional = _graph.as_graph(self.network)
        backend.engine.check_call(self)
        keras_internals.forget_losses(functional)
        is_differentiated = backend.engine.is_differentiated(training)
        with_gradient = is_differentiated and not is_undifferentiated()
        if (training and with_gradient) or self._inputs_with_time is None:
            self.remember_time(inputs)
        inputs, mask, first = call_inputs(self, inputs, mask)
        if mask is not None:
            _graph.check_padding(functional)
        if training and with_gradient:
            quantization.check_trainable(self)
            _graph.check_trainable(functional)
            replicas.check_training_call(self)
        run = Run(
            parts=_graph.parts_of(functional),
            inputs=inputs,
            timesteps=self.timesteps,
            step_mode=self.step_mode,
            training=training,
            with_gradient=with_gradient and not _graph.couples_samples(functional),
            return_sequences=self.return_sequences,
            network=functional,
            seed_generator=self._draws if self.gradient.uses_random_numbers else None,
            mask=mask,
        )
        with replicas.own_noise(self.network):
            outputs = self._call_method(run)
        if first is not None:
            outputs = self._in_order_of_inputs(outputs, first)
        if run.with_gradient:
            backend.engine.replicas.average_gradients(
                outputs, lambda: self.trainable_variables
            )
        return outputs

    def remember_time(self, inputs: Structure) -> None:
        """Remembers which inputs have time, as an exported graph will take them."""
        self._inputs_with_time = tuple(inputs_with_time(self, inputs))

    def _in_order_of_inputs(self, outputs: Structure, first: Tensor) -> Structure:
        """The outputs of a call in which time started at the step `first` of each
        sample, with their steps where they were."""
        if not self.return_sequences:
            return outputs
        return keras.tree.map_structure(
            lambda output: starting_at(-first, output), outputs
        )

    @backend.engine.untraced
    def _call_method(self, run: Run) -> Structure:
        fuses = self._asked_jit_compile is not False
        with backend.engine.fusing(fuses, run.training, self._graphs.loops):
            return outputs_of_run(self, run)

    def _run_method(self, method: GradientMethod, run: Run) -> Structure:
        return run_method(method, run)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        if training:
            replicas.check_losses(self.loss)
        loss_checks.check(self.loss, y, y_pred, sample_weight, self.return_sequences)
        with setting(_added_losses, (self, self.losses)):
            sample_weight = replicas.weigh_by_mask(
                self.loss, y_pred, sample_weight, training
            )
            loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        return replicas.weigh_by_size(loss, x) if training and x is not None else loss

    @property
    def losses(self) -> list[Tensor]:
        """The losses that layers have added, and those of weights."""
        model, added = _added_losses.get()
        return added if model is self else super().losses

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        if self.return_sequences:
            loss_checks.check_metrics(keras_internals.compiled_metrics(self), y, y_pred)
        with (
            setting(_in_step, True),
            loss_checks.explained(self.loss, y, y_pred, self.return_sequences),
        ):
            return super().compute_metrics(x, y, y_pred, sample_weight)

    _initialize_ddp = keras_internals.initialize_no_ddp

    def get_metrics_result(self) -> dict[str, Any]:
        """The values of all metrics: after an epoch those of all replicas, within a
        step those of this replica."""
        metrics = super().get_metrics_result
        results = functools.partial(keras_internals.metrics_here, metrics)
        return results() if _in_step.get() else replicas.metrics_of_all(self, results)

    def step(self, inputs: Structure) -> Structure:
        """Advances a sequence by one time step, in inference mode, for inputs that
        arrive step by step.

        Membranes are kept between calls. The outputs of T calls equal those of one call
        on the whole sequence with `return_sequences=True`. A sequence may be longer
        than `timesteps`. `reset_state` starts a new one. No input is padding here,
        whatever its value. In an unrolled model (`keras_ratesnn.deploy.unroll`) a step
        is one of the integer network: it runs all its substeps.

        Example:

        >>> inputs = keras.Input((2,))
        >>> model = keras_ratesnn.SpikingModel(
        ...     keras.Model(inputs, keras_ratesnn.layers.IF()(inputs)), timesteps=4
        ... )
        >>> for t in range(3):
        ...     print(ops.convert_to_numpy(model.step(np.array([[0.5, 1.0]]))))
        [[0. 1.]]
        [[1. 1.]]
        [[0. 1.]]
        >>> model.reset_state()

        Args:
            inputs: Tensor `(batch, ...)`, or a structure of tensors: the inputs of the
                network at one step, without time.

        Returns:
            The network's output at this step.

        Raises:
            ValueError: If the inputs do not fit the network, or the batch size differs
                from that of previous steps.
        """
        functional = _graph.as_graph(checked_model(self).network)
        _graph.check_steps(functional, "`step`", all_substeps=True)
        _graph.check_length(functional, self._stream.steps + 1)
        pairs = zip(match(functional, inputs), functional.inputs, strict=True)
        tensors = [one_step(tensor, wanted) for tensor, wanted in pairs]
        with keras_internals.in_steps():
            return self._stream.advance(
                tensors[0].shape[0],
                lambda state, t: step_of(functional, self.timesteps, state, tensors, t),
            )

    def reset_state(self) -> None:
        """Ends the sequence of `step`: the next step starts at rest, with any batch
        size."""
        self._stream.reset()

    def _check_data(self, x: Any, least: int) -> None:
        check_data(self, x, least)
        check_some_steps_count(self, x)

    def __call__(
        self, inputs: Structure, *args: Any, mask: Structure = None, **kwargs: Any
    ) -> Structure:
        self._checked_graph()
        check_inputs(self, inputs)
        if mask is not None:
            check_some_steps_count(self, inputs, mask)
            kwargs["mask"] = mask
        with keras_internals.in_steps():
            return super().__call__(inputs, *args, **kwargs)

    def fit(self, x: Any = None, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        asked = preflight(self, keras.Model.fit, x, args, kwargs)
        given = asked.arguments
        given["callbacks"] = in_order(given.get("callbacks"))
        with (
            around_fit(self, x, given["callbacks"]),
            warning_of_silence(self, given, functools.partial(twin_of, self)),
        ):
            return run_by_keras(keras.Model.fit, asked)

    evaluate = with_preflight(keras_internals.keeps_state(keras.Model.evaluate))
    predict = with_preflight(keras_internals.keeps_state(keras.Model.predict))
    train_on_batch = with_preflight(keras.Model.train_on_batch)
    test_on_batch = with_preflight(keras.Model.test_on_batch)
    predict_on_batch = with_preflight(keras.Model.predict_on_batch, least=0)

    def save(self, filepath: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Saves the model in a `.keras` file, like `keras.Model.save`. HDF5 files
        cannot contain nested models."""
        model_files.check_path(filepath, kwargs)
        layer_configs.warn_of_shared(self.network)
        return super().save(filepath, *args, **kwargs)

    def load_weights(
        self, filepath: str | os.PathLike[str], *args: Any, **kwargs: Any
    ) -> None:
        """Loads weights from a file of `save_weights`, like
        `keras.Model.load_weights`."""
        with model_files.explained_misfits(filepath):
            super().load_weights(filepath, *args, **kwargs)

    def export(
        self,
        filepath: str | os.PathLike[str],
        format: str = "tf_saved_model",
        verbose: bool | None = None,
        input_signature: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Exports the inference graph of all time steps, like `keras.Model.export`.

        `keras_ratesnn.deploy.export_step` exports a single step, for inputs that arrive
        step by step. docs/deploy.md shows how to run the files.

        Args:
            filepath: String or path, where to write.
            format: `"tf_saved_model"` (on TensorFlow and JAX), `"onnx"` (on PyTorch and
                TensorFlow, and on JAX with `jax2onnx`), `"litert"` (on TensorFlow, and
                on PyTorch with `litert-torch`), `"openvino"` (on TensorFlow and
                PyTorch; the path ends in `.xml`), `"torch"` (on PyTorch), or another
                format that Keras supports on this backend. Defaults to
                `"tf_saved_model"`.
            verbose: Boolean, whether to print a message. Defaults to `None`: Keras
                decides.
            input_signature: List of `keras.InputSpec`; those without a name get that of
                the network's input. Defaults to the network's inputs, with time,
                `(None, timesteps, ...)`, if the model was last trained with it, or else
                first called with it.
            **kwargs: As in `keras.Model.export`.

        Raises:
            ValueError: If the format is unknown or not available on this backend, or
                cannot hold the network: half precision in LiteRT, bfloat16 in ONNX and
                OpenVINO, random encoders in any format but a SavedModel.
            ImportError: If a package is missing.
            OSError: If a file cannot be at `filepath`: there is no such folder, or it
                is a folder itself.
        """
        functional = _graph.as_graph(self.network)
        _graph.check_samples_apart(functional, "An exported graph")
        path = export_formats.check(functional, filepath, format)
        frames = _graph.frames_of(functional, self.timesteps)
        input_signature = export_formats.signature(
            functional, input_signature, self._inputs_with_time or (), frames
        )
        kwargs = {**export_formats.any_batch(format, input_signature), **kwargs}
        named = keras_internals.naming_inputs(input_signature)
        with (
            undifferentiated(),
            backend.engine.no_gradient(),
            export_formats.exporting(format),
            named,
        ):
            return super().export(path, format, verbose, input_signature, **kwargs)

    def quantize(
        self,
        mode: str | None = None,
        config: Any = None,
        filters: Any = None,
        **kwargs: Any,
    ) -> None:
        """Quantizes weights for inference, like `keras.Model.quantize`. A quantized
        model cannot be trained.

        Keras quantizes `Dense`, `EinsumDense` and `Embedding`, not convolutions; a
        warning names the layers that stay as they were. The inputs of a quantized layer
        are rounded to 8 bits as well, each row by its largest value, in which spikes
        are exact. Saved and loaded models stay quantized.

        Example:

        >>> inputs = keras.Input((4,))
        >>> network = keras.Model(
        ...     inputs, keras.layers.Dense(2)(keras_ratesnn.layers.LIF()(inputs))
        ... )
        >>> model = keras_ratesnn.SpikingModel(network, timesteps=4)
        >>> model.quantize("int8")
        >>> network.layers[-1].kernel.dtype
        'int8'

        Args:
            mode: `"int8"`, or `"int4"` for weights of 4 bits. Defaults to `None`: that
                of `config`.
            config: A `keras.quantizers.QuantizationConfig`. Defaults to `None`, that of
                Keras for the mode.
            filters: A regular expression, a list of them or a function of a layer:
                which layers are quantized. Defaults to `None`, all.
            **kwargs: As in `keras.Model.quantize`.

        Raises:
            ValueError: If there is nothing to quantize, or Keras' mode is not for
                spiking networks: `"float8"`, `"gptq"`, `"awq"`.
        """
        wanted = quantization.checked_mode(
            config.mode if mode is None and config is not None else mode
        )
        with quantization.summarized(self.network, wanted):
            super().quantize(mode, config=config, filters=filters, **kwargs)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Like `keras.Model.compile`, but `jit_compile` has a different meaning on
        PyTorch.

        On PyTorch the operations of a call are recorded as a graph and replayed, with
        the same results. With `"auto"`, the default, this happens after 32 calls with
        the same shapes and settings. `True` records the second such call and compiles
        the graph, which takes half a minute or more for a ResNet-18 and needs a C++
        compiler (CPU) or Triton (GPU). `False` and `run_eagerly=True` run every call in
        eager mode.

        A warning says if one of Keras' losses takes the outputs for what they are not:
        logits or the firing rates of a last layer of neurons for probabilities, or
        probabilities for logits.
        """
        super().compile(*args, **kwargs)
        network = _graph.as_graph(self.network)
        find = loss_checks.problem_of_outputs
        warn_once(self, find, network, self.loss, stacklevel=3)

    def summary(self, *args: Any, **kwargs: Any) -> Any:
        kwargs.setdefault("expand_nested", True)
        return super().summary(*args, **kwargs)


def twin_of(
    model: SpikingModel, gradient: Any, step_mode: Any = "multi", **kwargs: Any
) -> SpikingModel:
    """A model that shares the network of another, with settings and compiled functions
    of its own.

    Its calls are not compiled, since Python code observes them. Methods with random
    numbers draw those that the model would draw.
    """
    kwargs = {
        "name": model.name,
        "mask_value": model.mask_value,
        "timesteps": model.timesteps,
        **kwargs,
    }
    shared = SpikingModel(model.network, gradient="bptt", step_mode=step_mode, **kwargs)
    if model._draws is not None:
        keras_internals.set_state(shared, "_draws", model._draws)
    shared.gradient = gradient
    shared.compile(jit_compile=False)
    return shared


def checked_model(model: Any) -> SpikingModel:
    """The model; raises an error if it is not a `SpikingModel`, or has a `call` of its
    own, which would be left out."""
    advice = (
        "Wrap a network with neurons in SpikingModel(network, timesteps=4), or "
        "convert one without neurons with spikify."
    )
    checks.instance("model", model, SpikingModel, advice=advice)
    if type(model).call.__module__.partition(".")[0] != "keras_ratesnn":
        raise ValueError(
            "`model` must not have a `call` of its own: here its network is run "
            f"without it. Received: {model!r}, of the class {type(model).__name__}. "
            "Move what its `call` does into layers of the network."
        )
    return model
