"""Functions of each backend that Keras has not, or not for all backends."""

import abc
import contextlib
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import keras
from keras import ops

from keras_ratesnn._core import keras_internals, tree
from keras_ratesnn._core.annotations import Structure, Tensor
from keras_ratesnn._core.backend import plain_normalization


class CallGraphs:
    """Runs the calls of a Keras model, which a backend may record as graphs.

    Attributes:
        loops: What `Backend.fusing` keeps for the model.
    """

    def __init__(self) -> None:
        self.loops: dict[Any, Any] = {}

    def call(
        self,
        function: Callable[[list[Tensor]], Structure],
        tensors: list[Tensor],
        model: keras.Model,
        objects: tuple[Any, ...],
        settings: Hashable,
        jit_compile: bool | str,
    ) -> Structure:
        """`function(tensors)`, possibly by a graph.

        Args:
            function: Takes a list of tensors and returns a structure of tensors. It may
                use and assign variables of the model and add losses to its layers. It
                is not kept.
            tensors: List of tensors.
            model: Keras model.
            objects: Other objects, whose attributes the function reads, or generators
                of random numbers.
            settings: What else the function depends on.
            jit_compile: `True` records the second call of a kind and compiles the
                graph; `"auto"` records a later one; `False` always runs the function.
        """
        return function(tensors)

    @property
    def execution(self) -> str:
        """The runner of calls: `"keras"`, or where they are recorded `"eager"`,
        `"recorded"` or `"compiled"`."""
        return "keras"


class Replicas:
    """The replicas of a model that train together: by default one, whose compiler sees
    the whole batch."""

    PROCESSES = False
    """Whether each replica is a process of its own."""

    def count(self) -> int:
        """The number of replicas of a model that see parts of the same batch."""
        return 1

    def index(self) -> int | Tensor:
        """The number of this replica, from 0 on."""
        return 0

    def gather(self, tensor: Tensor) -> Tensor:
        """The tensors of all replicas, `(replicas, ...)`, with gradient. Their shapes
        must be equal."""
        return tensor[None]

    def sums(self, *tensors: Tensor) -> Sequence[Tensor]:
        """The sums over all replicas of tensors of one shape; the tensors themselves if
        there is one replica."""
        if self.count() == 1:
            return tensors
        total = ops.sum(self.gather(ops.stack(tensors)), axis=0)
        return ops.unstack(total, len(tensors))

    def average_gradients(
        self, outputs: Structure, weights: Callable[[], list[keras.Variable]]
    ) -> None:
        """Averages gradients over all replicas at the end of each backward pass through
        the outputs, unless Keras does so."""

    def share_first(self, model: keras.Model) -> None:
        """Gives all replicas the variables of the first one, where each has its own."""

    def in_data_parallel_module(self) -> bool:
        """Whether this runs inside a module of the backend that averages gradients
        itself."""
        return False


@dataclasses.dataclass(frozen=True)
class TimeLoop:
    """All time steps of a layer of neurons: functions of one, and the tensors of all.

    Attributes:
        cell: A neuron cell.
        key: What the functions depend on, besides the cell.
        begin: Function of the inputs of the first step that returns the state before
            it.
        steps: For each phase a function `(state, inputs, valid) -> (state, outputs)` of
            one step, as in `Backend.elementwise`; tensors, or lists.
        counts: For each phase the number of its steps.
        summarize: Function of the last state that returns what takes its place.
        inputs: List of tensors `(batch, T, ...)`, or `(batch, ...)` where they are the
            same at every step.
        same: For each input, whether it is.
        valid: Boolean tensor `(batch, T)`, false for what is padding, or `None`.
    """

    cell: Any
    key: Hashable
    begin: Callable[..., Structure]
    steps: list[Callable[..., Any]]
    counts: list[int]
    summarize: Callable[..., Structure]
    inputs: list[Tensor]
    same: list[bool]
    valid: Tensor | None


class Backend(abc.ABC):
    """All differences between backends. A new backend is a subclass, which has what is
    abstract here, and overrides other methods where their defaults do not fit it, or
    where it does better.

    The defaults are those of a backend with one replica whose compiler sees a whole
    training step, and unrolls all loops.
    """

    KERAS_COMPILES = True
    """Whether Keras compiles by its `jit_compile`, which otherwise says what becomes of
    calls that are recorded."""

    EAGER_IS_SLOW = False
    """Whether a training step takes less time if it is compiled for a single call."""

    SETTINGS: tuple[tuple[str, Any, str], ...] = ()
    """The settings of `keras_ratesnn.engine_settings`: name, the module that has it,
    and the name of its attribute there."""

    replicas = Replicas()

    def again(self, function: Callable[..., Structure], *tensors: Tensor) -> Structure:
        """`function(*tensors)`, which runs again in the backward pass: what it computes
        is not kept until then."""
        return function(*tensors)

    def any_size(self, name: str) -> Any:
        """A size that an exported graph leaves open, as the backend's own exporter
        takes it."""
        return None

    def assigned_weight(self, value: Tensor, before: Tensor) -> Tensor:
        """A weight to which a layer has assigned `value`, where tensors replace the
        weights.

        It has the derivative that the backend's own weights have after an assignment:
        by default that of the weight itself, which does not pass through what was
        assigned.
        """
        return self.graft(value, before, 1.0)

    def batches_of_step(self, data: Any, steps: int) -> tuple[list[Any], Any]:
        """`(batches, data)`: the batches of the arguments of a compiled Keras function,
        none where the host does not see them.

        `steps` is how many a call takes. The returned `data` replaces the iterator that
        was passed.
        """
        if isinstance(data, list):
            return data, data
        batches = list(itertools.islice(data, steps))
        return batches, itertools.chain(batches, data)

    def call_graphs(self) -> CallGraphs:
        """New `CallGraphs`, for a model."""
        return CallGraphs()

    def check_call(self, model: keras.Model) -> None:  # noqa: B027
        """Raises RuntimeError where a call of a model would give wrong numbers, or an
        error of the backend's without remedy."""

    def check_equal(self, size: Any, wanted: Any, message: str) -> None:
        """Raises an error if two numbers differ, which may be known only at run
        time."""
        if isinstance(size, int) and isinstance(wanted, int) and size != wanted:
            raise ValueError(message)

    def compiled(
        self,
        function: Callable[[list[Tensor]], list[Tensor]],
        model: keras.Model,
        graphs: CallGraphs,
        settings: Hashable,
        jit_compile: bool | str,
    ) -> Callable[[list[Tensor]], list[Tensor]]:
        """The function, compiled for each combination of shapes: for calls around which
        there is no compiled function of Keras.

        Args:
            function: Function from a list of tensors to another one, in inference. It
                may use the variables of the model, and assign those that are not
                trainable.
            model: Keras model.
            graphs: Where calls are recorded, if they are.
            settings: What the function depends on besides the model.
            jit_compile: True, False or "auto", as in `CallGraphs.call`.
        """
        return lambda tensors: graphs.call(
            function, tensors, model, (), settings, jit_compile
        )

    def compiled_for_few_calls(
        self,
        function: Callable[[Structure], Structure],
        variables: list[keras.Variable],
        tensors: Structure,
    ) -> Callable[[Structure], Structure]:
        """The function, which uses these variables, compiled for tensors like these
        where `EAGER_IS_SLOW`, soon rather than well; see `compiled`."""
        return function

    def cond(
        self,
        chosen: Tensor,
        function: Callable[[], list[Tensor]],
        otherwise: list[Tensor],
    ) -> list[Tensor]:
        """`function()` if a boolean scalar tensor is true; else, at no cost,
        `otherwise`: tensors like its results."""
        return ops.cond(chosen, function, lambda: otherwise)

    def differentiable(self, tensor: Tensor) -> Tensor:
        """The tensor, as one that `gradient_of` differentiates with respect to."""
        return tensor

    def elementwise(
        self,
        function: Callable[..., Any],
        cell: Any,
        key: Hashable,
        *arguments: Structure,
    ) -> Any:
        """`function(*arguments)`, compiled into one pass over memory where that pays
        off.

        Args:
            function: Function of structures of tensors and numbers, without side
                effects, that reads no weights except those of the cell. It depends only
                on the cell, its arguments and the key.
            cell: A neuron cell.
            key: What else the function depends on.
            *arguments: Structures of tensors and numbers.
        """
        return function(*arguments)

    def exporting(self, format: str) -> AbstractContextManager[Any]:
        """A context in which graphs have what the converter to a format of
        `keras.Model.export` knows."""
        return contextlib.nullcontext()

    def steps_of_samples(self, tensor: Tensor, steps: Tensor) -> Tensor:
        """Steps of each sample of a tensor `(batch, T, ...)`, given their numbers
        `(batch, T, 1, ...)`."""
        return ops.take_along_axis(tensor, steps, axis=1)

    def finite_rows(self, tensors: list[Tensor], rows: list[int | Tensor]) -> Tensor:
        """Whether all elements are finite in all tensors, for each of several equal
        parts into which the tensors are split.

        Args:
            tensors: List of tensors, not empty.
            rows: List with the number of parts for each tensor: the same one, or 1 for
                a tensor that concerns all parts.

        Returns:
            Tensor of booleans, `(rows,)` or `(1,)`.
        """
        finite = [
            ops.all(ops.reshape(ops.isfinite(tensor), (count, -1)), axis=1)
            for tensor, count in zip(tensors, rows, strict=True)
        ]
        return functools.reduce(ops.logical_and, finite)

    def fusing(
        self, allowed: bool, training: bool, loops: dict[Any, Any]
    ) -> AbstractContextManager[Any]:
        """A context in which `elementwise` may compile, if that is allowed.

        Args:
            allowed: Boolean.
            training: Boolean, whether the calls in it are those of training.
            loops: Dictionary, empty at first, in which it keeps what it compiles for a
                model.
        """
        return contextlib.nullcontext()

    @abc.abstractmethod
    def grad_enabled(self) -> bool:
        """Whether operations may be differentiated later."""

    def is_differentiated(self, training: bool) -> bool:
        """Whether a call of a model gives what may be differentiated. In training it
        does also where nothing is: its losses are the same then."""
        return training or self.grad_enabled()

    def gradient_of(
        self, function: Callable[..., Any], inputs: list[Tensor], upstream: list[Tensor]
    ) -> tuple[list[Tensor | None], Structure]:
        """`(gradients, rest)`, where `function(*inputs)` returns a list of tensors and
        a structure `rest`.

        The tensors of the list have the gradients `upstream`; `rest` is not
        differentiated. Gradients may be `None`.
        """
        pull, rest = self.pullback(function, inputs)
        return pull(upstream), rest

    def filter_in_time(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        """Each channel of `(rows, T, channels)`, filtered by its part of a kernel `(L,
        channels)`, L > 1, of the same dtype:

            y_t = Σ_i K_i x_{t−L+1+i}   x_t = 0 before the first step
        """
        padded = ops.pad(inputs, [[0, 0], [kernel.shape[0] - 1, 0], [0, 0]])
        return ops.depthwise_conv(
            padded, kernel[:, :, None], 1, "valid", data_format="channels_last"
        )

    @abc.abstractmethod
    def graft(
        self,
        value: Tensor,
        onto: Tensor,
        slope: float | Tensor,
        *more: tuple[Tensor, float | Tensor],
    ) -> Tensor:
        """`value`; its derivative is `slope` with respect to `onto`, and none with
        respect to anything else.

        Args:
            value: Tensor, the result.
            onto: Tensor of the same shape and dtype, with respect to which the result
                is differentiated. Its value is not used.
            slope: Tensor of the same shape and dtype, or a float.
            *more: Pairs of `onto` and `slope`, the derivatives with respect to other
                tensors.
        """

    @abc.abstractmethod
    def jvp(
        self,
        function: Callable[..., Any],
        primals: list[Tensor],
        tangents: list[Tensor],
    ) -> tuple[list[Tensor], list[Tensor]]:
        """`(outputs, tangents)`: the list of tensors that a function returns, and its
        directional derivative."""

    def layout_kept(self) -> AbstractContextManager[Any]:
        """A context in which Keras' layers do not copy `channels_last` data to another
        layout.

        It is entered for each call of a layer, also inside of another one.
        """
        return contextlib.nullcontext()

    def loses_replaced_weights(self, layer: keras.layers.Layer) -> bool:
        """Whether tensors that replace the weights of a layer would have no
        gradient."""
        return False

    def check_replaced_weights(self, network: keras.Model, advice: str = "") -> None:
        """Raises ValueError where it `loses_replaced_weights`; the advice follows that
        to make the layers elsewhere."""
        if self.loses_replaced_weights(network):
            raise ValueError(
                f"The backend {keras.backend.backend()!r} loses the gradients of "
                "layers made in a keras.RematScope where tensors take the place of "
                f"weights. Received: network {network.name!r} with such layers. Make "
                f"it outside of the scope{advice}."
            )

    merged_moments = plain_normalization.merged_moments

    def multiply_add(self, x: Any, factor: Any, y: Any) -> Any:
        """x · factor + y, in one pass over memory."""
        return x * factor + y

    def no_gradient(self) -> AbstractContextManager[Any]:
        """A context in which nothing is recorded for a backward pass."""
        return contextlib.nullcontext()

    def noise_state(self) -> Any:
        """The state of random generators other than the seeds of layers."""
        return ()

    normalize = plain_normalization.normalize
    normalize_as = plain_normalization.normalize_as

    def optimization_barrier(self, tensors: Structure) -> Structure:
        """The tensors of a structure, each computed before any is used."""
        return tensors

    def postponed(self, tensors: list[Tensor], until: list[Tensor]) -> list[Tensor]:
        """The tensors, available only once others exist: nothing is computed from them
        earlier, or taken from what was computed from them earlier."""
        return tensors

    @abc.abstractmethod
    def pullback(
        self, function: Callable[..., Any], inputs: list[Tensor]
    ) -> tuple[Callable[..., Any], Structure]:
        """`(pull, rest)`, where `pull(upstream)`, called at most once, returns the
        gradients of `gradient_of`."""

    def ranks_of_batch(self, data: Any) -> tuple[tuple[int | None, ...], Any]:
        """`(ranks, data)`: the ranks of the arguments of a compiled Keras function,
        where it cannot be compiled for several.

        The returned `data` replaces the iterator that was passed.
        """
        return (), data

    def reading_once(self, network: keras.Model) -> AbstractContextManager[Any]:
        """A context for all forward passes of a training step. Losses cannot be added
        in it.

        In it the backward pass sees the weights of a network before the update.
        """
        return contextlib.nullcontext()

    def record_calls(self, model: keras.Model) -> None:  # noqa: B027
        """Records the calls of an ordinary Functional or Sequential model from now on,
        on a backend that records calls."""

    def repeated_noise(self, state: Any) -> AbstractContextManager[Any]:
        """A context in which numbers are drawn again from a state of `noise_state`;
        later ones do not depend on it."""
        return contextlib.nullcontext()

    def scan(
        self, body: Callable[..., Any], carried: Structure, steps: Tensor, dtype: str
    ) -> Any:
        """A loop with gradient, compiled once for any number of steps, of backends
        whose `unrolled_steps` have a limit.

        Args:
            body: Function `(carried, step) -> (carried, output)`.
            carried: Structure of tensors, the state before the first step.
            steps: Tensor `(T, ...)`.
            dtype: String, that of the outputs.

        Returns:
            `(carried, outputs)`: the state after the last step, and all outputs, `(T,
            ...)`.

        Raises:
            NotImplementedError: If the backend has none.
        """
        raise NotImplementedError(
            f"The backend {keras.backend.backend()!r} has no compiled loop: it unrolls "
            "loops of any length, unless its `unrolled_steps` or "
            "`unrolled_network_steps` say otherwise."
        )

    def set_noise_state(self, state: Any) -> None:  # noqa: B027
        """Sets the state that `noise_state` returned."""

    def spikes_wait_as_bytes(self) -> bool:
        """Whether spikes are bytes until a later layer, or the backward pass, reads
        them: a compiler makes them floats again where they are read."""
        return False

    def steps_in_a_pass(self, timesteps: int, with_gradient: bool) -> int:
        """The number of steps of an unrolled time loop of one layer that `elementwise`
        is given at once."""
        return timesteps

    def traced(self, function: Callable[..., Structure]) -> Callable[..., Structure]:
        """A function of structures of tensors, without side effects, compiled where it
        would run operation by operation."""
        return function

    def unrolled_network_steps(self) -> float:
        """As `unrolled_steps`, for the time loop around a whole network."""
        return math.inf

    def unrolled_steps(self, with_gradient: bool) -> float:
        """Up to this T, unrolling the time loop of one layer is better than a compiled
        loop."""
        return math.inf

    def time_loop(self, loop: TimeLoop) -> tuple[Structure, list[Tensor]] | None:
        """`(state, outputs)` of all steps by a program that is compiled for any number
        of them, or `None`: there is none."""
        return None

    def untraced(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, excluded from compilers that trace Python code."""
        return function

    @abc.abstractmethod
    def with_backward(
        self,
        values: list[Tensor],
        inputs: list[Tensor],
        context: Any,
        backward: Callable[..., Any],
        kept: list[Tensor] | None = None,
    ) -> list[Tensor]:
        """`values`, whose gradients with respect to the tensors `inputs` are
        `backward(inputs, context, upstream)`.

        That function may use no other tensors. `kept` is a list of tensors that are
        kept for it in the place of the inputs; it defaults to `None`, the inputs.
        """

    def detached(self, function: Callable[..., Structure], *args: Any) -> Structure:
        """The result of `function(*args)`, a structure of tensors and numbers, without
        gradient; Keras masks stay."""

        def stopped(leaf):
            if not ops.is_tensor(leaf):
                return leaf
            return keras_internals.masked_as(ops.stop_gradient(leaf), leaf)

        return tree.map_leaves(stopped, function(*args))
