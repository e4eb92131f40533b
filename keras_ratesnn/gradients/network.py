"""A planned network: its nodes, one step of all of them, and the loops over time around
them.

A network is a list of nodes, each a *handler* and the slots of its inputs and outputs.
`step` runs them once; it has no effect but on Keras variables. Single-step mode and
streams are loops over it. In multi-step mode the loops are exchanged: each node runs
all steps before the next one begins. What is the same at every step runs once, before
them.
"""

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from keras import ops

from keras_ratesnn._core import call_kernels, keras_internals, time_axis, tree
from keras_ratesnn._core.annotations import Structure, Tensor
from keras_ratesnn._core.backend import engine
from keras_ratesnn._graph import PlannedCall, last_uses
from keras_ratesnn.gradients._bytes import rates_of_node, waiting_as_bytes
from keras_ratesnn.gradients._propagate_nan import propagate_nan
from keras_ratesnn.gradients.handlers import Context, Handler, handler_class
from keras_ratesnn.gradients.handlers.handler import HandlerState, Time
from keras_ratesnn.gradients.run import Run
from keras_ratesnn.gradients.time import loops
from keras_ratesnn.gradients.time.windows import Windows
from keras_ratesnn.layer_kinds import TIME_MEAN, kind_of


class Node(NamedTuple):
    """A handler, and the numbers of the slots of its inputs and outputs.

    Args:
        handler: The `Handler` that computes the outputs.
        inputs: Integers, the slots that it reads.
        outputs: Integers, the slots that it fills. Those that a method adds have
            negative numbers.
    """

    handler: Handler
    inputs: Sequence[int]
    outputs: Sequence[int]


class Constants(NamedTuple):
    """Values that are the same at every step, and the inputs.

    Args:
        tensors: Dictionary of tensors by the numbers of their slots; inputs with time
            are whole.
        kernels: Dictionary of what layers compute from their weights, see `LayerKind`.
    """

    tensors: dict[int, Any]
    kernels: dict[Any, Structure]


States = list[HandlerState]
"""The states of all nodes, in their order."""

NodesOf = Callable[[Sequence[PlannedCall], Context], Iterable[Node]]

HandlerOf = Callable[[PlannedCall, Context], Handler]
"""For example a class of handlers, or one with some of its arguments,
`functools.partial`."""


class Gathered(NamedTuple):
    """Of the steps so far, the sums of the outputs, or all of them if all are wanted;
    and their Keras masks, `()` for none."""

    outputs: Structure
    masks: Structure


def plain_nodes(calls: Sequence[PlannedCall], context: Context) -> Iterable[Node]:
    """A node for each call, in order.

    Args:
        calls: Sequence of `PlannedCall`, those of a network.
        context: `Context`, which the handlers are given.
    """
    mean_slots: set[int] = set()
    for call in calls:
        outputs = [slot.index for slot in call.outputs]
        follows_a_mean = not mean_slots.isdisjoint(call.inputs)
        if follows_a_mean or kind_of(call.operation).role == TIME_MEAN:
            mean_slots.update(outputs)
        # The mean of a mean is that mean, not one of the means so far.
        handler = handler_class(call, context, follows_a_mean)(call, context)
        yield Node(handler, call.inputs, outputs)


class Network:
    """The nodes of a run, and what runs them.

    Args:
        run: `Run`.
        nodes: Function `(calls, context) -> nodes`. A node comes after those whose
            slots it reads; slots of its own have negative numbers. Defaults to
            `plain_nodes`.
        windows: Tuple of integers that add up to T, the sizes of the windows with a
            mean each. Defaults to `None`, one window.
        with_gradient: See `Context`, like the next arguments. Defaults to `None`, as
            the run has it.
        detached: Defaults to `False`.
        records: Defaults to `False`.
        last_step: Defaults to `False`.
        streams: Defaults to `False`.
        between: Defaults to `None`.
        chosen: Defaults to `None`.

    Raises:
        ValueError: If a node reads a slot that none before it writes, or writes slots
            of its own that none reads.
    """

    def __init__(
        self,
        run: Run,
        nodes: NodesOf = plain_nodes,
        windows: Sequence[int] | None = None,
        *,
        with_gradient: bool | None = None,
        detached: bool = False,
        records: bool = False,
        last_step: bool = False,
        streams: bool = False,
        between: Callable[[Structure], Structure] | None = None,
        chosen: Tensor | None = None,
    ) -> None:
        part = run.parts[0]
        self.run = run
        sizes = (run.timesteps,) if windows is None else tuple(windows)
        self.windows = Windows(sizes, run.mask)
        rows = ops.shape(run.inputs[0][0])[0] * run.timesteps
        self.context = Context(
            self.windows,
            rows,
            run.training,
            all_at_once=run.step_mode == "multi",
            with_gradient=run.with_gradient if with_gradient is None else with_gradient,
            detached=detached,
            records=records,
            last_step=last_step,
            streams=streams,
            between=between,
            chosen=chosen,
        )
        self.inputs = [
            (slot.index, has_time)
            for slot, (_, has_time) in zip(part.inputs, run.inputs, strict=True)
        ]
        self.outputs = part.outputs
        # Between the steps of a stream nothing is the same.
        is_step_of_stream = self.context.streams and not self.context.all_at_once
        self.static: set[int] = set()
        if not is_step_of_stream:
            self.static.update(index for index, has_time in self.inputs if not has_time)
        self.once_nodes: list[Node] = []
        self.nodes: list[Node] = []
        all_nodes = list(nodes(part.calls, self.context))
        _check_slots(all_nodes, [index for index, _ in self.inputs], self.outputs)
        for node in all_nodes:
            handler = node.handler
            handler.static = [index in self.static for index in node.inputs]
            is_static = (
                handler.is_static_if_inputs_are
                and not handler.takes_time
                and self.static.issuperset(node.inputs)
            )
            if is_static and not is_step_of_stream:
                self.static.update(node.outputs)
                self.once_nodes.append(node)
            else:
                self.nodes.append(node)
        self._losses: list[tuple[Any, Tensor]] = []
        # The slots of spikes that no node has read yet, and that may wait as bytes.
        self._spikes = {
            index
            for node in self.nodes
            if node.handler.waits_as_bytes
            for index in node.outputs
        }
        # In a stream, the states before the first step, of which an exported step needs
        # the values.
        self.initial_states: States = []
        slots = [{*node.inputs, *node.outputs} for node in self.nodes]
        self._freed = last_uses(slots, self.outputs)

    def once(self) -> Constants:
        """Runs what is the same at every step, with gradient."""
        tensors: dict[int, Any] = {}
        kernels: dict[Any, Structure] = {}
        for (index, _), (tensor, _) in zip(self.inputs, self.run.inputs, strict=True):
            tensors[index] = tensor
        for node in self.once_nodes:
            outputs, loss = node.handler.once([tensors[index] for index in node.inputs])
            _check_outputs(node, outputs)
            self._add_loss(node.handler, loss)
            outputs = self.seen(node, tensors, outputs, set())
            tensors.update(zip(node.outputs, outputs, strict=True))
        for node in self.nodes:
            layer, compute = node.handler.operation, node.handler.kind.kernels
            # A layer that runs again in the backward pass would not find them there.
            if (
                compute
                and layer not in kernels
                and not keras_internals.is_rematerialized(layer)
            ):
                kernels[layer] = compute(layer)
        return Constants(tensors, kernels)

    def seen(
        self,
        node: Node,
        tensors: dict[int, Any],
        outputs: list[Tensor],
        freed: set[int],
    ) -> list[Tensor]:
        """Called with the outputs of each node; the network continues with what it
        returns.

        Args:
            node: `Node`.
            tensors: The tensors so far, by slots.
            outputs: List of tensors, those of the node.
            freed: The slots that no later node needs.
        """
        return outputs

    def _add_loss(self, handler, loss):
        if not tree.is_absent(loss):
            self._losses.append((handler.operation, loss))

    def step(
        self, states: States | None, constants: Constants, t: Time
    ) -> tuple[States, Structure]:
        """One step: `(states, outputs)`.

        Args:
            states: Those that the previous step returned; `None`, or `None` for some
                nodes, before the first step.
            constants: What `once` returned.
            t: Integer, or integer scalar tensor: the time step, from 0 on.
        """
        constants = self._with_inputs(constants, lambda x: time_axis.step_of(x, t), t)
        self.initial_states = []

        def advance(handler, state, inputs):
            if state is None:
                state, _ = self._detached(lambda: (handler.start(inputs), []))
                if self.context.streams:
                    self.initial_states.append(state)
            return self._detached(lambda: handler.step(state, inputs, t))

        states = states or [None] * len(self.nodes)
        states_after, outputs = self._run_nodes(constants, advance, states)
        return states_after, tree.map_leaves(lambda y: self._output(y, t), outputs)

    def all_steps(
        self, states: States | None, constants: Constants
    ) -> tuple[States, Structure]:
        """All steps at once: `(states, outputs)`, with outputs `(batch * T, ...)`;
        `states` as in `step`."""
        constants = self._with_inputs(constants, time_axis.fold, None)

        def act(handler, state, inputs):
            return self._detached(lambda: handler.all_steps(state, inputs))

        states, outputs = self._run_nodes(constants, act, states)

        def repeated(y):
            return time_axis.repeat(y, self.windows.timesteps)

        def rows(slot, y):
            if slot.index in self.static:
                y = keras_internals.with_mask(repeated, y)
            return self._output(self.context.checked(y), None)

        return states, tree.map_leaves(rows, self.outputs, outputs)

    def _detached(self, function):
        """`(state, outputs)` of a node, without gradient where something else provides
        it; of states, see `after_last_step`."""
        if not self.context.detached:
            return function()
        states = []

        def outputs_alone():
            state, outputs = function()
            states.append(state)
            return outputs

        outputs = engine.detached(outputs_alone)
        return states[0], outputs

    def _with_inputs(self, constants, rows_of, t):
        """Constants, with the rows of one step, or of all, in the place of inputs with
        time."""
        tensors = dict(constants.tensors)
        for index, has_time in self.inputs:
            if has_time:
                # A tensor may be several inputs.
                whole = constants.tensors[index]
                rows = keras_internals.with_mask(rows_of, whole)
                tensors[index] = self._only_valid(rows, t)
        return constants._replace(tensors=tensors)

    def _only_valid(self, rows, t):
        return keras_internals.masked_as(self.windows.only_valid_at(t, rows), rows)

    def _output(self, rows, t):
        chosen = self.context.with_gradient_of_chosen(rows, t)
        return self._only_valid(keras_internals.masked_as(chosen, rows), t)

    def _run_nodes(self, constants, act, states=None):
        """`(results, outputs)`: the first results of `act(handler, state, inputs)` for
        each node, and the network's outputs."""
        states = states or [()] * len(self.nodes)
        steps = list(zip(self.nodes, states, self._freed, strict=True))
        tensors = constants.tensors
        with call_kernels.using(constants.kernels):
            results = self._results_of_nodes(steps, tensors, act)
        return results, tree.map_leaves(lambda slot: tensors[slot.index], self.outputs)

    def _results_of_nodes(self, steps, tensors, act):
        """The first results of nodes, each with its state and the slots that are free
        after it."""
        results = []
        for node, state, freed in steps:
            result, outputs = self._result_of_node(node, state, tensors, act)
            self._store(node, outputs, tensors, freed)
            results.append(result)
        return results

    def _result_of_node(self, node, state, tensors, act):
        inputs = [tensors[index] for index in node.inputs]
        result, outputs = act(node.handler, state, node.handler.prepared(inputs))
        _check_outputs(node, outputs)
        return result, outputs

    def _store(self, node, outputs, tensors, freed):
        outputs = self.seen(node, tensors, outputs, freed)
        for index in self._spikes.intersection(node.inputs):
            self._spikes.remove(index)
            if index not in freed:
                outputs = waiting_as_bytes(tensors, index, outputs)
        tensors.update(zip(node.outputs, outputs, strict=True))
        # They may be the activations of all time steps: their memory is for the next
        # ones.
        for index in freed:
            del tensors[index]

    def run_steps(self, constants: Constants) -> tuple[States, Structure]:
        """All steps in the step mode of the run: `(states, outputs)`, see
        `after_last_step`.

        Outputs are time means `(batch, ...)`, or all steps `(batch, T, ...)` if
        `run.return_sequences`.
        """
        if not self.context.all_at_once:
            states, gathered = self.sweep(constants)
            return self.after_last_step(states, self.outputs_of_sweep(gathered))
        states, rows = self.all_steps(None, constants)
        timesteps, sequences = self.windows.timesteps, self.run.return_sequences

        def output(y):
            mask = keras_internals.mask_of(y)
            if mask is not None:
                mask = time_axis.unfold(self._valid_mask(mask, None), timesteps)
            if sequences:
                mask = self.run.mask if mask is None else mask
                return keras_internals.put_mask(time_axis.unfold(y, timesteps), mask)
            if mask is not None:
                # A time mean counts where some step does.
                mask = ops.any(mask, axis=1)
            return keras_internals.put_mask(self.windows.mean_over_all(y), mask)

        return self.after_last_step(states, tree.map_leaves(output, rows))

    def after_last_step(
        self, states: States, outputs: Structure
    ) -> tuple[States, Structure]:
        """`(states, outputs)` after the last step: states without what only a next one
        needs, and outputs with NaN, see `with_nan_of_membranes`."""
        released = [
            node.handler.release(state)
            for node, state in zip(self.nodes, states, strict=True)
        ]
        outputs = self.with_nan_of_membranes(states, outputs)
        if self.context.detached:
            return engine.detached(lambda: released), outputs
        return released, outputs

    def carried(self, states: States) -> list[Structure]:
        """The state that each node carries to the next step, see `Handler.carried`."""
        return [
            node.handler.carried(state)
            for node, state in zip(self.nodes, states, strict=True)
        ]

    def resumed(self, carried: Sequence[Structure]) -> States:
        """The states that carry this."""
        return [
            node.handler.resumed(part)
            for node, part in zip(self.nodes, carried, strict=True)
        ]

    def _valid_mask(self, mask, t):
        return self.windows.only_valid_at(t, ops.cast(mask, "bool"))

    def sweep(self, constants: Constants) -> tuple[States, Gathered]:
        """All steps, one after the other: `(states, gathered)`."""

        def advance(t, carried):
            states, gathered = carried or (None, None)
            states, outputs = self.step(states, constants, t)
            return states, self._gather(gathered, outputs, t)

        carried, timesteps = advance(0, None), self.windows.timesteps
        is_long = timesteps > engine.unrolled_network_steps()
        if is_long and not self.context.with_gradient:
            variables = self.run.network.variables
            return loops.run(advance, carried, variables, timesteps)
        for t in range(1, timesteps):
            carried = advance(t, carried)
        return carried

    def _gather(self, gathered, outputs, t):
        if gathered is None:
            # For the means of the sums, which are in a wider dtype.
            self._dtypes = tree.map_leaves(lambda output: output.dtype, outputs)
            nothing = tree.map_leaves(lambda _: None, outputs)
            gathered = Gathered(nothing, nothing)

        def joined(so_far, value, plus):
            if self.run.return_sequences:
                return time_axis.with_step(so_far, value, t, self.windows.timesteps)
            return value if so_far is None else plus(so_far, value)

        def total(output, so_far):
            if not self.run.return_sequences:
                output = time_axis.widen(output)
            return joined(so_far, output, operator.add)

        def mask(output, so_far):
            mask = keras_internals.mask_of(output)
            if mask is None:
                return ()
            return joined(so_far, self._valid_mask(mask, t), ops.logical_or)

        return Gathered(
            tree.map_leaves(total, outputs, gathered.outputs),
            tree.map_leaves(mask, outputs, gathered.masks),
        )

    def outputs_of_sweep(self, gathered: Gathered) -> Structure:
        """The outputs of a sweep: means over the steps that count, with gradient, or
        sequences."""

        def output(total, dtype, mask):
            if tree.is_absent(mask):
                mask = self.run.mask if self.run.return_sequences else None
            if not self.run.return_sequences:
                mean = self.windows.mean_of_all(total)
                total = ops.cast(mean, time_axis.mean_dtype(dtype))
            return keras_internals.put_mask(total, mask)

        return tree.map_leaves(output, gathered.outputs, self._dtypes, gathered.masks)

    def rates(self, states: States, constants: Constants) -> Structure:
        """The network on rates, given the states after the last step: outputs `(batch *
        W, ...)`, with gradient."""
        tensors = dict(constants.tensors)
        for index, has_time in self.inputs:
            if has_time:
                tensors[index] = self._rates_of_input(constants.tensors[index])

        # Of rates that are computed again in the backward pass, by their identity.
        known: dict[int, tuple[Tensor, Callable[[], Tensor]]] = {}

        def act(handler, state, inputs):
            rates, loss = rates_of_node(handler, state, inputs, known)
            self._add_loss(handler, loss)
            return (), rates

        return self._run_nodes(constants._replace(tensors=tensors), act, states)[1]

    def _rates_of_input(self, steps):
        if time_axis.is_float(steps.dtype):
            if self.context.last_step:
                return steps[:, -1]
            return self.windows.means_over_steps(time_axis.fold(steps))
        # Integers and booleans have no rate: all of their steps stay.
        if self.context.last_step:
            return time_axis.repeat(steps[:, -1], self.windows.timesteps)
        return time_axis.fold(steps)

    def commit(self, states: States, outputs: Structure) -> Structure:
        """Passes losses and statistics to the layers, and returns the outputs."""
        for node, state in zip(self.nodes, states, strict=True):
            self._add_loss(node.handler, getattr(state, "loss", ()))
        # Last: calling a layer may clear earlier losses.
        for layer, loss in self._losses:
            layer.add_loss(loss)
        for node in self.once_nodes:
            node.handler.commit(())
        for node, state in zip(self.nodes, states, strict=True):
            node.handler.commit(state)
        return outputs

    def with_nan_of_membranes(self, states: States, outputs: Structure) -> Structure:
        """The outputs, NaN for samples with a membrane that is NaN or infinite."""
        membranes = [
            node.handler.membranes(state)
            for node, state in zip(self.nodes, states, strict=True)
        ]
        return propagate_nan(outputs, membranes)


def _check_slots(nodes, inputs, outputs):
    """Raises ValueError unless all slots that are read are written before, and a node's
    own slots are read."""
    known = set(inputs)
    for node in nodes:
        unknown = [index for index in node.inputs if index not in known]
        if unknown:
            raise ValueError(
                "A node must come after those whose slots it reads. Received: "
                f"{_described(node)}, which reads {unknown}. No node before it writes "
                "that. Change the order of the nodes, or the slots."
            )
        known.update(node.outputs)
    read = {slot.index for slot in tree.flatten(outputs)}
    unknown = sorted(read - known)
    if unknown:
        raise ValueError(
            f"No node writes {unknown}, which the network returns. Yield a node with "
            "these slots as outputs."
        )
    for node in reversed(nodes):
        if node.outputs and max(node.outputs) < 0 and read.isdisjoint(node.outputs):
            raise ValueError(
                "Something must read the slots that a node adds to the network. "
                f"Received: {_described(node)}, whose outputs {list(node.outputs)} "
                "nothing reads, so that it does nothing. Give it the slots that others "
                "read, and another slot to the node that wrote these; or leave it out."
            )
        read.update(node.inputs)


def _check_outputs(node, outputs):
    if not isinstance(outputs, list) or len(outputs) != len(node.outputs):
        raise TypeError(
            "A handler must return a list with a tensor for each of the "
            f"{len(node.outputs)} slots of its node's outputs. Received: a "
            f"{type(outputs).__name__} of length {len(outputs)} from "
            f"{_described(node)}. Return (state, [output]) for one output."
        )


def _described(node):
    return (
        f"a node with a {type(node.handler).__name__} of layer "
        f"{node.handler.operation.name!r}"
    )


def plain(run: Run, nodes: NodesOf = plain_nodes) -> Structure:
    """The outputs of the spiking network; differentiating them is backpropagation
    through time.

    Args:
        run: `Run`.
        nodes: Function `(calls, context) -> nodes`, see `Network`. Defaults to
            `plain_nodes`.
    """
    return in_time(Network(run, nodes))


def in_time(network: Network) -> Structure:
    """The outputs of a network, whose steps run once.

    Args:
        network: `Network`, the nodes of this run.
    """
    return network.commit(*network.run_steps(network.once()))
