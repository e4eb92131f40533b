"""IntegerModel: a network of integers as a Keras model for inference."""

import functools
import os
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_ratesnn._core import checks, progress
from keras_ratesnn._core.annotations import Config, Tensor
from keras_ratesnn._core.backend import engine
from keras_ratesnn._model.streaming import Stream
from keras_ratesnn._model.weight_checks import check_finite
from keras_ratesnn._steps import batches, conformal
from keras_ratesnn._steps.answers import Answers
from keras_ratesnn.conversion.quantization import WeightType
from keras_ratesnn.integers import _file, _membranes, _steps
from keras_ratesnn.integers._compiler import compile_model
from keras_ratesnn.integers._network import IntegerNetwork
from keras_ratesnn.integers._report import IntegerReport
from keras_ratesnn.layers.quantized import WEIGHT_TYPES
from keras_ratesnn.spiking_model import SpikingModel, checked_model


def _with_checked_values(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of Keras that checks the values of an array before they are tensors."""

    @functools.wraps(method)
    def checked(self, x=None, *args, **kwargs):
        if isinstance(x, np.ndarray):
            _check_samples(x)
            self._check_range(x)
        return method(self, x, *args, **kwargs)

    return checked


class IntegerModel(keras.Model):
    """A network of integers, a Keras model for inference.
    `keras_ratesnn.deploy.to_integers` and `load_integers` make one.

    Its inputs are integers. The outputs of `predict` and `evaluate` are real logits,
    the integer ones times a unit; `integer_logits` gives the integers, `step` those of
    one time step of a sequence. The results are the same to the last bit on every
    backend, and in the program that `keras_ratesnn.deploy.export_c` writes. It cannot
    be trained.

    Args:
        network: `IntegerNetwork`.
        report: `IntegerReport`, what became of the layers of a model; `None` for a
            file. Defaults to `None`.
        **kwargs: `name` of a Keras model.

    Attributes:
        network: The `IntegerNetwork`: its layers and constants.
        report: The `IntegerReport`, which can be printed, or `None`.
    """

    def __init__(
        self,
        network: IntegerNetwork,
        report: IntegerReport | None = None,
        **kwargs: Any,
    ) -> None:
        # Integers need float32 for their sums, whatever the policy.
        super().__init__(dtype="float32", trainable=False, **kwargs)
        self.network = network
        self.report = report
        self.kernels = {
            name: self._add_kernel(kernel)
            for name, kernel in _steps.kernels_of(network).items()
        }
        self.built = True
        self._stream = Stream()

    def _add_kernel(self, kernel):
        # Without the name of its layer: that of a variable has no "/".
        variable = self.add_weight(
            shape=kernel.shape, initializer="zeros", trainable=False
        )
        variable.assign(kernel)
        return variable

    @property
    def timesteps(self) -> int:
        """The number of time steps T."""
        return self.network.timesteps

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        return ops.cast(self._sums(inputs), "float32") * np.float32(
            self.network.unit / self.network.timesteps
        )

    def _sums(self, inputs):
        """The sums of the integer logits over time."""
        batch = self._batch(inputs)
        return sum(batch.advance(t) for t in range(self.timesteps))

    def _batch(self, x):
        """Inputs as a batch that is run step by step."""
        x, temporal = self._frames(x)
        return _steps.Batch(self.network, x, temporal, self._kernels())

    def _kernels(self):
        return {
            name: ops.convert_to_tensor(kernel) for name, kernel in self.kernels.items()
        }

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0], self.network.classes)

    def integer_logits(self, x: Any, batch_size: int = 256) -> np.ndarray:
        """The integer logits Z_c = Σ_t I_t: the largest, or the first of several, is
        the class.

        Args:
            x: Array of integers, `(batch, ...)`, or `(batch, T, ...)` with a frame for
                each step.
            batch_size: Integer >= 1, how many samples are computed at once. Defaults to
                `256`.

        Returns:
            int32 array `(batch, classes)`.

        Raises:
            TypeError: If `x` holds no integers.
            ValueError: If `x` has another shape than the inputs of the network, or
                values out of their range.
        """
        x = self._checked_values(x)
        batch_size = checks.positive_integer("batch_size", batch_size)
        parts = (
            x[first : first + batch_size] for first in range(0, len(x), batch_size)
        )
        with engine.no_gradient():
            sums = [
                ops.convert_to_numpy(
                    self._sums(ops.convert_to_tensor(part.astype("int32")))
                )
                for part in parts
            ]
        return np.concatenate([np.zeros((0, self.network.classes), "int32"), *sums])

    def logits_until_sure(
        self, x: Any, margin: int, batch_size: int = 256
    ) -> tuple[np.ndarray, np.ndarray]:
        """The integer logits after as few time steps as each sample needs to be sure.

        A sample stops after t steps if the largest of its logits so far exceeds all
        others by `margin` · t or more, at the latest after T steps. This is exact in
        integers, where a softmax, as in `keras_ratesnn.deploy.predict_until_sure`, is
        not; with two classes both stop at the same samples. `calibrate_margin` finds a
        margin.

        Args:
            x: As in `integer_logits`.
            margin: Integer from 0 to 2^31 − 1; with 0 all samples stop after the first
                step.
            batch_size: As in `integer_logits`.

        Returns:
            `(logits, steps)`: int32 array `(batch, classes)`, the sums over the steps
            of each sample, and int32 array `(batch,)`, their numbers from 1 to T.

        Raises:
            TypeError: As in `integer_logits`, or if `margin` is no integer.
            ValueError: As in `integer_logits`, or if `margin` is out of its range, or
                there is one class only.
        """
        margin = checks.integer("margin", margin, at_least=0, at_most=2**31 - 1)
        stopped = self._until(
            x,
            batch_size,
            lambda totals, counts, samples, steps: _lead(totals) >= margin * steps,
        )
        return stopped.totals, stopped.steps

    def calibrate_margin(
        self, x: Any, y: Any, error: float = 0.02, batch_size: int = 256
    ) -> int:
        """Finds the smallest `margin` for `logits_until_sure` with which stopping early
        seldom costs the right answer.

        Its guarantee is that of `keras_ratesnn.deploy.calibrate_confidence`.

        Args:
            x: As in `integer_logits`, held-out samples.
            y: Array, their labels: class indices, or one-hot vectors.
            error: Float between 0 and 1, the largest probability that an answer is
                wrong which would be right after all steps. Defaults to `0.02`.
            batch_size: As in `integer_logits`.

        Returns:
            Integer.

        Raises:
            TypeError: As in `integer_logits`.
            ValueError: As in `logits_until_sure`, or if labels do not fit, or there are
                too few samples for this error.
        """
        x = self._checked_values(x)
        answers = Answers(y, len(x), self.network.classes, self.timesteps)

        def record(totals, counts, samples, steps):
            return answers.record(_lead(totals) // steps, totals, samples, steps)

        self._until(x, batch_size, record)
        largest = conformal.largest_allowed(
            conformal.scores(answers.certainty, answers.right, answers.last), error
        )
        return int(largest) + 1 if np.isfinite(largest) else 0

    def _until(self, x, batch_size, leaves):
        x = self._checked_values(x)
        if self.network.classes == 1:
            raise ValueError(
                "A network must have two classes or more to be sure of one. Received: "
                "one with a single logit."
            )
        _check_samples(x)

        def begin(samples):
            batch = self._batch(ops.convert_to_tensor(x[samples].astype("int32")))
            return batch, np.ones((len(samples), self.timesteps), bool)

        with engine.no_gradient():
            return batches.run(begin, len(x), batch_size, leaves)

    def _checked_values(self, x):
        """Inputs as an array; raises an error if they are none of the network."""
        x = np.asarray(x)
        self._frames(x)
        self._check_range(x)
        return x

    def _check_range(self, x):
        """Raises ValueError if integers are out of the range of inputs. Those of
        tensors cannot be seen everywhere."""
        if (
            isinstance(x, np.ndarray)
            and x.dtype.kind in "iu"
            and x.size
            and (x.min() < 0 or x.max() > self.network.largest_input)
        ):
            raise ValueError(
                f"`x` must be from 0 to {self.network.largest_input}, for which the "
                f"network was made. Received: values from {x.min()} to {x.max()}. Pass "
                "`largest_input` to `to_integers`."
            )

    def layer_outputs(self, x: Any) -> dict[str, np.ndarray]:
        """The values of all layers at all steps, to compare a chip with: currents,
        spikes, sums and logits.

        Args:
            x: As in `integer_logits`; one batch.

        Returns:
            Dict of the names of layers in `network.layers` to int32 arrays `(batch, T,
            ...)`, channels last.

        Raises:
            TypeError: As in `integer_logits`.
            ValueError: As in `integer_logits`.
        """
        x = ops.convert_to_tensor(self._checked_values(x).astype("int32"))
        outputs: dict[str, list] = {layer.name: [] for layer in self.network.layers}
        with engine.no_gradient():
            batch = self._batch(x)
            for t in range(self.timesteps):
                batch.advance(t)
                for name, steps in outputs.items():
                    steps.append(ops.convert_to_numpy(batch.outputs[name]))
        return {name: np.stack(steps, axis=1) for name, steps in outputs.items()}

    def _frames(self, x):
        """Inputs with channels last, and whether there is one for each step."""
        dtype = keras.backend.standardize_dtype(x.dtype)
        if "int" not in dtype:
            raise TypeError(
                "`x` must be integers, pixels or counts as uint8: the network has the "
                f"layers that scale them. Received: an array of dtype {dtype}. Pass "
                "what was measured, x.astype('uint8'), not what was divided or "
                "normalised."
            )
        shape, wanted = tuple(x.shape), self.network.input_shape
        if self.network.channels_first:
            wanted = (wanted[-1], *wanted[:-1])
        axes_before = len(shape) - len(wanted)
        if axes_before not in (1, 2) or shape[axes_before:] != wanted:
            raise ValueError(
                f"`x` must have the shape (batch, {', '.join(map(str, wanted))}), or a "
                f"time axis after the batch. Received: an array of shape {shape}."
            )
        temporal = axes_before == 2
        if temporal and shape[1] != self.timesteps:
            raise ValueError(
                f"`x` must have {self.timesteps} frames, one for each time step. "
                f"Received: an array of shape {shape}. Use `step` for sequences of "
                "other lengths."
            )
        if self.network.channels_first:
            x = (np if isinstance(x, np.ndarray) else ops).moveaxis(x, -3, -1)
        return x, temporal

    def step(self, inputs: Any) -> Tensor:
        """Advances a sequence by one time step. Membranes are kept between calls;
        `reset_state` starts a new sequence.

        Args:
            inputs: Integers `(batch, ...)`, one frame.

        Returns:
            int32 tensor `(batch, classes)`, the integer logits I_t of this step.

        Raises:
            TypeError: As in `integer_logits`.
            ValueError: If the input has another shape, or another batch size than in
                the steps before.
        """
        inputs = np.asarray(inputs) if isinstance(inputs, (list, tuple)) else inputs
        self._check_range(inputs)
        x, temporal = self._frames(ops.convert_to_tensor(inputs))
        if temporal:
            raise ValueError(
                "`inputs` must be one frame. Received: an array of shape "
                f"{tuple(x.shape)}. Leave the time axis out."
            )

        def advance(state, t):
            batch = _steps.Batch(self.network, x, False, self._kernels(), state)
            logits = batch.advance(t)
            return batch.state, logits

        with engine.no_gradient():
            return self._stream.advance(x.shape[0], advance)

    def reset_state(self) -> None:
        """Ends the sequence of `step`: the next step starts at rest, with any batch
        size."""
        self._stream.reset()

    predict = _with_checked_values(keras.Model.predict)
    evaluate = _with_checked_values(keras.Model.evaluate)
    predict_on_batch = _with_checked_values(keras.Model.predict_on_batch)
    test_on_batch = _with_checked_values(keras.Model.test_on_batch)

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(
            "A network of integers has no gradient. Train the model that it was made "
            "of, see keras_ratesnn.deploy.quantize_aware, and make it again."
        )

    train_on_batch = fit

    def quantize(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(
            "A network of integers is quantized: choose its weights in "
            "keras_ratesnn.deploy.to_integers or keras_ratesnn.deploy.quantize_aware."
        )

    def get_config(self) -> Config:
        raise NotImplementedError(
            "A network of integers has files of its own: use `save_integers` and "
            "`load_integers`."
        )

    def save_integers(self, filepath: str | os.PathLike[str]) -> None:
        """Writes the network as an npz file of integers, see
        `keras_ratesnn.deploy.load_integers`.

        Args:
            filepath: String or path.

        Raises:
            OSError: If the file cannot be written. One that was there before is then as
                it was.
        """
        _file.write(self.network, checks.file_to_write("filepath", filepath))


def _check_samples(x):
    if not len(x):
        raise ValueError("`x` must have samples, at least one. Received: 0 samples.")


def _lead(logits):
    """By how much the largest of integer logits exceeds the second, `(rows,)`."""
    second, first = np.partition(logits.astype("int64"), -2, axis=1)[:, -2:].T
    return first - second


def to_integers(
    model: SpikingModel,
    weights: WeightType | None = None,
    membrane_bits: int = 16,
    largest_input: int = 255,
    verbose: bool = True,
) -> IntegerModel:
    """Makes a network of integers of a trained model: integer weights, membranes,
    thresholds and logits.

    Inputs are pixels or counts in uint8. A kernel has integers of 8, 4 or 2 bits with a
    scale for each output channel. Normalisation, scales and thresholds become the unit
    of each channel's membrane, so that neither is computed: a current needs a shift, a
    leak m / 2^k a product and a shift. Every result is an integer that depends neither
    on the order of sums nor on the machine.

    A model of `keras_ratesnn.deploy.quantize_aware` keeps the integers with which it
    was trained. What cannot be exact, such as attention, is an error that names the
    layer.

    Example:

    >>> inputs = keras.Input((8, 8, 1))
    >>> x = keras.layers.Rescaling(1 / 255)(inputs)
    >>> x = keras_ratesnn.layers.LIF(name="neurons")(
    ...     keras.layers.Conv2D(4, 3, name="filters")(x)
    ... )
    >>> x = keras.layers.Dense(3, name="classes")(
    ...     keras.layers.GlobalAveragePooling2D()(x)
    ... )
    >>> model = keras_ratesnn.SpikingModel(keras.Model(inputs, x), timesteps=4)
    >>> chip = to_integers(model, verbose=False)
    >>> images = np.random.randint(0, 256, (5, 8, 8, 1), "uint8")
    >>> chip.integer_logits(images).dtype, chip.predict(images, verbose=0).shape
    (dtype('int32'), (5, 3))

    Args:
        model: A `SpikingModel`, with one input and one output.
        weights: `"int8"`, `"int4"` or `"ternary"`, for all kernels but the first and
            the last ones, which have 8 bits. Defaults to `None`: as the model was
            trained, or else `"int8"`.
        membrane_bits: Integer from 8 to 24. Defaults to `16`.
        largest_input: Integer from 1 to 255, the largest value of an input. Defaults to
            `255`.
        verbose: Boolean, whether the report is printed. Defaults to `True`.

    Returns:
        An `IntegerModel`, with the `report`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of its range, a weight is NaN or infinite, or
            integers cannot compute a layer; the message names it.

    Source: Jacob et al., "Quantization and training of neural networks for efficient
    integer-arithmetic-only inference", CVPR 2018; Yin et al., "MINT: Multiplier-less
    integer quantization for energy efficient spiking neural networks", ASP-DAC 2024.
    """
    checked_model(model)
    if weights is not None:
        checks.one_of("weights", weights, WEIGHT_TYPES)
    checks.integer(
        "membrane_bits",
        membrane_bits,
        at_least=_membranes.LEAST_BITS,
        at_most=_membranes.MOST_BITS,
    )
    checks.integer("largest_input", largest_input, at_least=1, at_most=255)
    verbose = progress.checked(verbose)
    check_finite(model.variables)
    network, report = compile_model(model, weights, membrane_bits, largest_input)
    if verbose:
        print(report)
    return IntegerModel(network, report, name=f"{model.name}_integer")


def load_integers(filepath: str | os.PathLike[str]) -> IntegerModel:
    """Reads a network of integers that `IntegerModel.save_integers` wrote, or another
    program.

    The file is an npz: `meta`, JSON, with `timesteps`, `temporal_input` and the
    `layers` in the order in which they run; and integer arrays, `w/NAME`, `theta/NAME`,
    `bias/NAME`, `v0/NAME` and `multiplier/NAME/INPUT`. A layer has a `name` of letters,
    digits and `_ / . -`, a `kind`, the names of its inputs in `from`, and numbers of
    its kind. Neurons that add currents have the `shift` of each; a single number is
    that of all. All of this is checked before arrays are read, of which 256 MiB at most
    belong to layers; a file of anybody puts nothing but numbers and such names into a C
    program.

    Args:
        filepath: String or path.

    Returns:
        An `IntegerModel`.

    Raises:
        OSError: If there is no such file.
        TypeError: If `filepath` is no path.
        ValueError: If it is no network of integers.
    """
    return IntegerModel(_file.read(checks.path("filepath", filepath)))
