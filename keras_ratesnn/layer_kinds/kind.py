"""LayerKind: the facts about a layer class."""

import dataclasses
from collections.abc import Callable

from keras_ratesnn._core import checks

OPERATION = "operation"
NEURON = "neuron"
ENCODER = "encoder"
CELL = "cell"
TIME_MEAN = "time mean"
TIME_MIXING = "time mixing"
READOUT = "readout"
ROLES = (OPERATION, NEURON, ENCODER, CELL, TIME_MEAN, TIME_MIXING, READOUT)


@dataclasses.dataclass(frozen=True)
class BatchStatistics:
    """How a layer normalises with batch statistics in training, for the `normalization`
    of its `LayerKind`.

    Time steps and rates have other statistics. A subclass of
    `keras.layers.BatchNormalization` with its `call` needs none of this: it has the
    facts of its base class.

    Example:

    >>> def centered(layer, inputs, times=1, mask=None):
    ...     mean, variance = ops.mean(inputs, axis=0), ops.var(inputs, axis=0)
    ...     return inputs - mean, mean, variance
    >>> class Centering(keras.layers.Layer):
    ...     layer_kind = keras_ratesnn.layers.LayerKind(
    ...         affine=True,
    ...         normalization=keras_ratesnn.layers.BatchStatistics(centered),
    ...     )
    ...
    ...     def call(self, inputs, training=None):
    ...         return centered(self, inputs)[0] if training else inputs

    Args:
        normalize: Function `(layer, inputs, times=1, mask=None) -> (outputs, mean,
            variance)`: normalises a tensor with its own statistics, without those rows
            that are masked, and updates the layer's moving averages `times` times.
        normalize_rate: Function `(layer, rate, mean, variance, weights=None) ->
            outputs`: normalises a rate with the given statistics as values, which are
            differentiated as the rate's own mean and variance, in which it may have
            weights. The layer has an attribute `epsilon`, which it adds to a variance.
            `None` if there is no such function. Defaults to `None`.
        step_factors: Function `layer -> (steps,)`: the factor of the normalised output
            at each time step, for a layer that takes the time step; `None` if there are
            none. Defaults to `None`.
        after_steps: Function `(layer, mean, variance)`, called once after all steps of
            a batch with the statistics of all steps, for a layer whose averages must
            not change earlier; `None` if there is nothing to do. Defaults to `None`.
        scale_and_shift: Function `layer -> (scale, shift)`: two float64 arrays
            `(channels,)`, for a layer that in inference multiplies its input by one and
            adds the other along its axis `axis`; `None` for other layers. Defaults to
            `None`.
    """

    normalize: Callable
    normalize_rate: Callable | None = None
    step_factors: Callable | None = None
    after_steps: Callable | None = None
    scale_and_shift: Callable | None = None


@dataclasses.dataclass(frozen=True)
class LayerKind:
    """Facts about a layer class.

    Args:
        role: `"operation"`, or `"neuron"`, `"encoder"`, `"cell"`, `"time mean"`, `"time
            mixing"`, `"readout"` for classes of `keras_ratesnn.layers`. Defaults to
            `"operation"`.
        affine: Boolean, whether `layer(x) = A x + b` for some `A` and `b`. Such a layer
            commutes with the time mean, so rate training needs only its derivative. The
            forward pass of any other layer is computed once more on the rate. If a
            layer is declared affine but is not, its gradients are wrong. Defaults to
            `False`.
        parameter_free: Boolean, whether an affine layer has no weights. Defaults to
            `False`.
        normalization: `BatchStatistics` of a layer that normalises in training, and is
            otherwise affine at each step; `None` for other layers. Defaults to `None`.
        random_mask: Boolean, whether the layer, in training, multiplies its input by a
            random mask that does not depend on it. Defaults to `False`.
        function_of_tensors: Boolean, whether a call depends only on tensors, not on
            `training`, masks or earlier calls. Defaults to `False`.
        any_layout: Boolean, whether it is a Keras convolution or pooling layer, which
            all backends can run on data in any memory layout. Defaults to `False`.
        activation: String, the name of the activation function if the operation only
            applies one; `None` otherwise. Defaults to `None`.
        moves: Boolean, whether it only moves or scales a signal if it has no other
            input signal. Defaults to `False`.
        multiply_adds: Function `(layer, input_shape, output_shape) -> integer`, its
            multiply-adds for one sample; `None` if unknown. Defaults to `None`.
        fan_out: Function `(layer, input_shape, output_shape) -> array`, how many
            synapses each element of the input of a sample feeds, an array that
            broadcasts to the sample; `None` if all feed the same number, or it is
            unknown. Defaults to `None`.
        sums: Boolean, whether it has no weights and adds each element of its input
            once. Defaults to `False`.
        products: Pair of integers, for an operation that sums products of elements of
            its two inputs: the axis of each input along which all elements meet the
            same elements of the other one; `None` for other operations. Defaults to
            `None`.
        keeps_order: Boolean, whether each output is one of the inputs, chosen by their
            order alone, as the largest one in max pooling. Defaults to `False`.
        multilinear: Boolean, whether the operation is linear in each of its input
            signals, as a product is. Defaults to `False`.
        substeps: Function `layer -> integer`, how many time steps are the substeps of
            one longer step, for a layer that takes them together: its `step` has inputs
            `(batch, substeps, ...)`; `None` for other layers. Defaults to `None`.
        most_timesteps: Function `layer -> integer`, the largest number of time steps it
            can run for, if it has weights for each step, or else `None`; `None` if no
            such layer has a limit. Defaults to `None`.
        exact_timesteps: Function `layer -> boolean`, whether it cannot run for fewer
            time steps than `most_timesteps` either; `None` if no such layer has to.
            Defaults to `None`.
        output_factors: Function `layer -> (name, shape)`, for a layer with Keras'
            arguments `use_bias` and `data_format`: the name of the weight to which its
            outputs without bias are proportional, and the shape in which factors
            `(channels,)` of the outputs broadcast to this weight; `None` for other
            layers. Defaults to `None`.
        kernels: Function `layer -> dict` of what its calls compute from its weights
            alone, tensors by names, which a network computes once for all time steps;
            `None` for other layers. Defaults to `None`.

    Raises:
        TypeError: If a fact has the wrong type.
        ValueError: If the role is unknown.
    """

    role: str = OPERATION
    affine: bool = False
    parameter_free: bool = False
    normalization: BatchStatistics | None = None
    random_mask: bool = False
    function_of_tensors: bool = False
    any_layout: bool = False
    activation: str | None = None
    moves: bool = False
    multiply_adds: Callable | None = None
    fan_out: Callable | None = None
    sums: bool = False
    products: tuple[int, int] | None = None
    keeps_order: bool = False
    multilinear: bool = False
    substeps: Callable | None = None
    most_timesteps: Callable | None = None
    exact_timesteps: Callable | None = None
    output_factors: Callable | None = None
    kernels: Callable | None = None

    def __post_init__(self) -> None:
        checks.one_of("role", self.role, ROLES)
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(field.default, bool):
                checks.boolean(field.name, value)
            # Written so above: the annotation is what says that it is a function.
            elif field.type == (Callable | None) and value is not None:
                checks.function(field.name, value)
        if self.normalization is not None:
            checks.instance("normalization", self.normalization, BatchStatistics)
