"""What each backend provides: the functions that Keras has not, or not for all backends."""

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import keras

from keras_ratesnn._core.annotations import Structure, Tensor


class Backend(Protocol):
    """The functions of `keras_ratesnn._core.backend`. A new backend is a module, or a few, with these names and parameters."""

    CallGraph: Any
    """`CallGraph(function, tensors, outputs, settings, compiled, name, places)`: a function of tensors as a graph of
    operations; `None` where Keras compiles whole functions."""

    LayerAttributes: Any
    """`LayerAttributes(layers, others=())`: the attributes of layers, watched for changes; `None` as `CallGraph`."""

    replicas: "Replicas"
    """A module: how many replicas of a model see parts of the same batch, and what they exchange."""

    def assigned_weight(self, value: Tensor, before: Tensor) -> Tensor:
        """A weight to which a layer has assigned `value`, where tensors replace the weights.

        It has the derivative that the backend's own weights have after an assignment.
        """

    def check_equal(self, size: Any, wanted: Any, message: str) -> None:
        """Raises an error if two numbers differ, which may be known only at run time."""

    def differentiable(self, tensor: Tensor) -> Tensor:
        """The tensor, as one that `gradient_of` differentiates with respect to."""

    def elementwise(self, function: Callable[..., Any], cell: Any, key: Hashable, *arguments: Structure) -> Any:
        """`function(*arguments)`, compiled into one pass over memory where that pays off.

        Args:
            function: Function of structures of tensors and numbers, without side effects, that reads no weights except those
                of the cell. It depends only on the cell, its arguments and the key.
            cell: A neuron cell.
            key: What else the function depends on.
            *arguments: Structures of tensors and numbers.
        """

    def finite_rows(self, tensors: list[Tensor], rows: list[int | Tensor]) -> Tensor:
        """Splits each tensor into as many equal parts; for each part, whether all its elements are finite in all tensors.

        Args:
            tensors: List of tensors, not empty.
            rows: List with a number of parts for each: the same one, or 1 for a tensor that concerns all parts.

        Returns:
            Tensor of booleans, `(rows,)` or `(1,)`.
        """

    def fusing(self, allowed: bool, training: bool, kept: dict[Any, Any]) -> AbstractContextManager[Any]:
        """A context in which `elementwise` may compile, if that is allowed.

        Args:
            allowed: Boolean.
            training: Boolean, whether the calls in it are those of training.
            kept: Dictionary, empty at first, in which it keeps what it compiles for a model.
        """

    def grad_enabled(self) -> bool:
        """Whether operations may be differentiated later."""

    def gradient_of(
        self, function: Callable[..., Any], inputs: list[Tensor], upstream: list[Tensor]
    ) -> tuple[list[Tensor | None], Structure]:
        """`(gradients, rest)`, where `function(*inputs)` returns a list of tensors and a structure `rest`.

        The tensors of the list have the gradients `upstream`; `rest` is not differentiated. Gradients may be `None`.
        """

    def graft(self, value: Tensor, onto: Tensor, slope: float | Tensor) -> Tensor:
        """`value`; its derivative is `slope` with respect to `onto`, and none with respect to anything else.

        Args:
            value: Tensor, the result.
            onto: Tensor of the same shape and dtype, with respect to which the result is differentiated. Its value is not used.
            slope: Tensor of the same shape and dtype, or a float.
        """

    def jvp(
        self, function: Callable[..., Any], primals: list[Tensor], tangents: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """`(outputs, tangents)`: the list of tensors that a function returns, and its directional derivative."""

    def layout_kept(self) -> AbstractContextManager[Any]:
        """A context in which Keras' layers do not copy `channels_last` data to another layout.

        It is entered for each call of a layer, also inside of another one.
        """

    def loses_replaced_weights(self, layer: keras.layers.Layer) -> bool:
        """Whether tensors that replace the weights of a layer would have no gradient."""

    def merged_moments(self, size: Any, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance over all replicas, given those of `size` elements of this replica."""

    def multiply_add(self, x: Any, factor: Any, y: Any) -> Any:
        """x · factor + y, in one pass over memory."""

    def no_gradient(self) -> AbstractContextManager[Any]:
        """A context in which nothing is recorded for a backward pass."""

    def noise_state(self) -> Any:
        """The state of random generators other than the seeds of layers."""

    def normalize(
        self,
        inputs: Tensor,
        axis: int,
        gamma: Tensor | None,
        beta: Tensor | None,
        epsilon: float,
        weights: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Normalises a batch with its own statistics over all axes except `axis`, and over all replicas.

        Args:
            inputs: Tensor.
            axis: Integer, the axis of channels.
            gamma: γ, of shape `(channels,)`, float32 or wider; or `None`.
            beta: β, likewise.
            epsilon: Float, added to the variance.
            weights: Tensor >= 0 of any scale, of the shape of the first axes of the inputs: their weights in the statistics.
                Defaults to `None`, equal weights.

        Returns:
            Outputs in the dtype of the inputs or wider; mean and variance without gradient, `(channels,)`, float32 or wider.
        """

    def normalize_as(
        self,
        inputs: Tensor,
        axis: int,
        gamma: Tensor | None,
        beta: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        epsilon: float,
        weights: Tensor | None = None,
    ) -> Tensor:
        """γ (x − μ) / sqrt(σ² + ε) + β with given statistics; other arguments are as in `normalize`.

        It is differentiated as if μ and σ² were those of the batch with these weights.
        """

    def optimization_barrier(self, tensors: Structure) -> Structure:
        """The tensors of a structure, each computed before any is used."""

    def ranks_of_batch(self, data: Any) -> tuple[tuple[int | None, ...], Any]:
        """`(ranks, data)`: the ranks of the arguments of a compiled Keras function, where it cannot be compiled for several.

        The returned `data` replaces the iterator that was passed.
        """

    def reading_once(self, network: keras.Model) -> AbstractContextManager[Any]:
        """A context for all forward passes of a training step. Losses cannot be added in it.

        In it the backward pass sees the weights of a network before the update.
        """

    def repeated_noise(self, state: Any) -> AbstractContextManager[Any]:
        """A context in which numbers are drawn again from a state of `noise_state`; later ones do not depend on it."""

    def scan(self, body: Callable[..., Any], carried: Structure, steps: Tensor, dtype: str) -> tuple[Structure, Tensor]:
        """A loop with gradient, compiled once for any number of steps.

        Args:
            body: Function `(carried, step) -> (carried, output)`.
            carried: Structure of tensors, the state before the first step.
            steps: Tensor `(T, ...)`.
            dtype: String, that of the outputs.

        Returns:
            `(carried, outputs)`: the state after the last step, and all outputs, `(T, ...)`.
        """

    def set_noise_state(self, state: Any) -> None:
        """Sets the state that `noise_state` returned."""

    def steps_in_a_pass(self, timesteps: int, with_gradient: bool) -> int:
        """The number of steps of an unrolled time loop of one layer that `elementwise` is given at once."""

    def unrolled_network_steps(self) -> float:
        """As `unrolled_steps`, for the time loop around a whole network."""

    def unrolled_steps(self, with_gradient: bool) -> float:
        """Up to this T, unrolling the time loop of one layer is better than a compiled loop."""

    def untraced(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, excluded from compilers that trace Python code."""

    def with_backward(
        self, values: list[Tensor], inputs: list[Tensor], others: Any, backward: Callable[..., Any]
    ) -> list[Tensor]:
        """`values`, whose gradients with respect to the tensors `inputs` are `backward(inputs, others, upstream)`.

        That function may use no other tensors.
        """

    def detached(self, function: Callable[..., Structure], *args: Any) -> Structure:
        """The result of `function(*args)`, a structure of tensors and numbers, without gradient."""


class Replicas(Protocol):
    """The replicas of a model that train together."""

    PROCESSES: bool
    """Whether each replica is a process of its own."""

    def count(self) -> int:
        """The number of replicas of a model that see parts of the same batch."""

    def index(self) -> int | Tensor:
        """The number of this replica, from 0 on."""

    def gather(self, tensor: Tensor) -> Tensor:
        """The tensors of all replicas, `(replicas, ...)`, with gradient. Their shapes must be equal."""

    def average_gradients(self, outputs: Structure, weights: Callable[[], list[keras.Variable]]) -> None:
        """Averages gradients over all replicas at the end of a backward pass through the outputs, unless Keras does so."""

    def share_first(self, model: keras.Model) -> None:
        """Gives all replicas the variables of the first one, where each has its own."""

    def in_data_parallel_module(self) -> bool:
        """Whether this runs inside a module of the backend that averages gradients itself."""


def names(protocol: type) -> list[str]:
    """The names that a protocol asks for."""
    return [name for name in (*protocol.__annotations__, *vars(protocol)) if not name.startswith("_")]
