"""Single-step mode with memory that does not grow with T, for methods without gradient
between time steps.

All steps run without gradient. Once the gradient of their outputs is known, they run
again, each followed by its own backward pass. A training step costs about 4T forward
passes; storing all activations costs 3T.
"""

import dataclasses
from typing import Any, NamedTuple

from keras import ops

from keras_ratesnn._core import keras_internals, time_axis, tree
from keras_ratesnn._core.backend import engine
from keras_ratesnn.gradients.handlers.handler import plus
from keras_ratesnn.gradients.network import Constants, Gathered, Network
from keras_ratesnn.gradients.time import loops


def recomputed(run, nodes, between, chosen):
    """The outputs of a run.

    Args:
        run: `Run`, in single-step mode.
        nodes: The nodes with which a step is differentiated, see `Network`.
        between: See `Context`.
        chosen: See `Context`.
    """
    first = Network(run, with_gradient=False, detached=True)
    noise = engine.noise_state()
    # Once: Keras collects the variables from all layers each time.
    variables = run.network.variables
    changing = loops.changing_of(variables)
    # The backward pass reuses the variable reads of the forward pass.
    with engine.reading_once(run.network):
        values = keras_internals.values_of(variables)
        for index in changing:
            # The first sweep changes these variables, in place on PyTorch.
            values[index] = ops.copy(values[index])
        constants = first.once()
        states, gathered = first.sweep(constants)
    drawn = {}
    for node, state in zip(first.nodes, states, strict=True):
        replayed = node.handler.replayed_state(state)
        if replayed is not None:
            drawn[node.handler.call.key] = replayed
    given = Given.of(constants, values, first.windows.mask, drawn, chosen)
    split = Split(given, variables)
    # The indices of the nodes that have losses, by their calls.
    with_losses = {}
    for index, (node, state) in enumerate(zip(first.nodes, states, strict=True)):
        if ops.is_tensor(getattr(state, "loss", ())):
            with_losses[node.handler.call.key] = index
    recomputation = _Recomputation(
        run, nodes, between, variables, changing, list(with_losses), noise, split
    )
    # Integers and booleans have no gradient.
    results = list(filter(tree.is_float, tree.flatten(gathered.outputs)))
    results += [states[index].loss for index in with_losses.values()]
    inputs, constant = split.apart(given)
    attached = iter(
        engine.with_backward(results, inputs, constant, recomputation.backward)
    )
    sums = tree.filled(gathered.outputs, attached, tree.is_float)
    outputs = first.outputs_of_sweep(Gathered(sums, gathered.masks))
    # Losses last: states have no gradient before.
    states, outputs = first.after_last_step(states, outputs)
    for index in with_losses.values():
        states[index] = states[index]._replace(loss=next(attached))
    return first.commit(states, outputs)


@dataclasses.dataclass(frozen=True)
class _Recomputation:
    """Runs the steps again, each followed by its own backward pass.

    Args:
        run: The `Run`.
        nodes: See `recomputed`.
        between: See `recomputed`.
        variables: List of the variables of the network.
        changing: List of the indices of those that a step changes.
        with_losses: List of the keys of the calls that have losses.
        noise: The state of the backend's generator before the first sweep.
        split: `Split` of what the steps are given: what may have a gradient, and what
            is constant.
    """

    run: Any
    nodes: Any
    between: Any
    variables: list[Any]
    changing: list[int]
    with_losses: list[str]
    noise: Any
    split: "Split"

    def backward(self, inputs, constant, upstream):
        """The gradients with respect to the inputs, summed over all steps."""
        given = self.split.joined(inputs, constant)
        run = dataclasses.replace(self.run, mask=or_none(given.mask))
        chosen_steps = or_none(given.chosen)
        network = Network(run, self.nodes, between=self.between, chosen=chosen_steps)

        def advance(t, carried):
            totals, states, changed = carried

            def step(*inputs):
                given = self.split.joined(inputs, constant)
                return self._step(network, given, t, states, changed)

            pull, (states_after, changed_after) = engine.pullback(step, inputs)

            def sums():
                gradients = pull(self._upstream_at(upstream, t))
                return [
                    total if gradient is None else total + gradient
                    for total, gradient in zip(totals, gradients, strict=True)
                ]

            if chosen_steps is None:
                return sums(), states_after, changed_after
            chosen = ops.take(chosen_steps, t)
            if engine.replicas.count() > 1 and not engine.replicas.PROCESSES:
                # TensorFlow's replicas cannot exchange statistics in a branch.
                totals_after = [
                    ops.where(chosen, new, old)
                    for new, old in zip(sums(), totals, strict=True)
                ]
            else:
                totals_after = engine.cond(chosen, sums, totals)
            return totals_after, states_after, changed_after

        start = [given.drawn.get(node.handler.call.key) for node in network.nodes]
        changed = [given.variables[index] for index in self.changing]
        # The zeros have no other name, which would keep them in memory.
        carried = [ops.zeros_like(tensor) for tensor in inputs], start, changed
        with engine.repeated_noise(self.noise):
            carried = advance(0, carried)
            if run.timesteps > engine.unrolled_network_steps():
                carried = ops.fori_loop(1, run.timesteps, advance, carried)
            else:
                for t in range(1, run.timesteps):
                    carried = advance(t, carried)
        return carried[0]

    def _step(self, network, given, t, states, changed):
        """`([outputs, losses], (states, changed))` of one step."""
        constants = given.masked_constants()
        (states, outputs), changed = loops.in_scope(
            lambda: network.step(states, constants, t),
            self.variables,
            given.variables,
            self.changing,
            changed,
        )
        results = tree.flatten(outputs)
        if self.run.return_sequences:
            results = list(filter(tree.is_float, results))
        else:
            results = list(map(time_axis.widen, results))
        losses: dict[Any, Any] = {}
        for node, state in zip(network.nodes, states, strict=True):
            # More than one node may be of a call.
            key = node.handler.call.key
            losses[key] = plus(losses.get(key), getattr(state, "loss", ()))
        results += [losses[key] for key in self.with_losses]
        return results, (states, changed)

    def _upstream_at(self, upstream, t):
        """The gradient of the results of one step."""
        if not self.run.return_sequences:
            return upstream
        outputs = len(upstream) - len(self.with_losses)
        at_step = [ops.take(gradient, t, axis=1) for gradient in upstream[:outputs]]
        return at_step + list(upstream[outputs:])


class Given(NamedTuple):
    """All tensors on which depends what runs again; `()` where there is none.

    Args:
        constants: `Constants`.
        masks: Dictionary of the masks that Keras has put on these tensors, by their
            slots: layers look for them there.
        variables: List of the values of variables.
        mask: The mask in time.
        drawn: Dictionary of what handlers have drawn, by the keys of their calls.
        chosen: See `Context`.
    """

    constants: Constants
    masks: dict[int, Any]
    variables: list[Any]
    mask: Any
    drawn: Any
    chosen: Any

    @classmethod
    def of(cls, constants, variables, mask, drawn=(), chosen=None):
        masks = {}
        for index, tensor in constants.tensors.items():
            mask_of_tensor = keras_internals.mask_of(tensor)
            if mask_of_tensor is not None:
                masks[index] = mask_of_tensor
        mask, chosen = (() if x is None else x for x in (mask, chosen))
        return cls(constants, masks, variables, mask, drawn, chosen)

    def masked_constants(self):
        """The constants, with their masks on them."""
        for index, mask in self.masks.items():
            keras_internals.put_mask(self.constants.tensors[index], mask)
        return self.constants


def or_none(tensor):
    """A tensor, or `None` for `()`."""
    return tensor if ops.is_tensor(tensor) else None


class Split:
    """Splits what is `Given` into two lists: what may have a gradient, and the rest.

    Args:
        given: `Given`.
        variables: List of the variables.
    """

    def __init__(self, given, variables):
        self.structure = tree.map_leaves(lambda _: None, given)
        flags = tree.map_leaves(lambda _: False, given)._replace(
            constants=tree.map_leaves(tree.is_float, given.constants),
            variables=[variable.trainable for variable in variables],
        )
        self.flags = tree.flatten(flags)

    def apart(self, given):
        flagged: list[Any] = []
        rest: list[Any] = []
        for leaf, flag in zip(tree.flatten(given), self.flags, strict=True):
            (flagged if flag else rest).append(leaf)
        return flagged, rest

    def joined(self, flagged, rest):
        flagged, rest, flags = iter(flagged), iter(rest), iter(self.flags)
        return tree.map_leaves(
            lambda _: next(flagged if next(flags) else rest), self.structure
        )
