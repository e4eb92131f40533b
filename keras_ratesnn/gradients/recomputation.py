"""Single-step mode with memory that does not grow with T, for methods without gradient
between time steps.

All steps run without gradient. Once the gradient of their outputs is known, they run
again, each followed by its own backward pass. A training step costs about 4T forward
passes; storing all activations costs 3T.
"""

import dataclasses
from typing import Any

from keras import ops

from keras_ratesnn._core import backend, keras_internals, time_axis, tree
from keras_ratesnn.gradients.handlers.handler import plus
from keras_ratesnn.gradients.network import Gathered, Network
from keras_ratesnn.gradients.time import loops


def recomputed(run, nodes, context):
    """The outputs of a run.

    Args:
        run: `Run`, in single-step mode.
        nodes: The nodes with which a step is differentiated, see `Network`.
        context: Dict, the arguments of their `Context`.
    """
    first, noise = (
        Network(run, with_gradient=False, detached=True),
        backend.noise_state(),
    )
    # Keras collects them from all layers each time.
    variables = run.network.variables
    changing = loops.changing_of(variables)
    # The backward pass reuses the variable reads of the forward pass.
    with backend.reading_once(run.network):
        values = keras_internals.values_of(variables)
        for index in changing:
            # The first sweep changes these variables, in place on PyTorch.
            values[index] = ops.copy(values[index])
        constants = first.once()
        states, gathered = first.sweep(constants)
    given = _given(first, constants, values, states, context["chosen"])
    parts = _Parts(given, _differentiable(given, variables))
    with_losses = {
        node.handler.call.key: number
        for number, (node, state) in enumerate(zip(first.nodes, states, strict=True))
        if ops.is_tensor(getattr(state, "loss", ()))
    }
    recomputation = _Recomputation(
        run, nodes, context, variables, changing, list(with_losses), noise, parts
    )
    # Integers and booleans have no gradient.
    flat = [
        *filter(tree.is_float, tree.flatten(gathered.outputs)),
        *(states[number].loss for number in with_losses.values()),
    ]
    results = iter(
        backend.with_backward(flat, *parts.split(given), recomputation.backward)
    )
    sums = tree.filled(gathered.outputs, results, tree.is_float)
    # Losses last: states have no gradient before.
    states, outputs = first.finished(
        states, first.of_gathered(Gathered(sums, gathered.masks))
    )
    for number in with_losses.values():
        states[number] = states[number]._replace(loss=next(results))
    return first.end(states, outputs)


def _given(first, constants, values, states, chosen):
    """All tensors that the steps depend on, after the first sweep."""
    pairs = [
        (node.handler, state) for node, state in zip(first.nodes, states, strict=True)
    ]
    drawn = {handler.call.key: handler.again(state) for handler, state in pairs}
    # The masks that Keras has put on tensors: layers look for them there.
    masks = {
        index: keras_internals.mask_of(tensor) for index, tensor in constants.items()
    }
    return {
        "constants": constants,
        "masks": {index: mask for index, mask in masks.items() if mask is not None},
        "variables": values,
        "drawn": {key: state for key, state in drawn.items() if state is not None},
        "chosen": () if chosen is None else chosen,
        "mask": () if first.windows.mask is None else first.windows.mask,
    }


class _Recomputation:
    """Runs the steps again, each followed by its own backward pass.

    Args:
        run: The `Run`.
        nodes: See `recomputed`.
        context: See `recomputed`.
        variables: List of the variables of the network.
        changing: List of the indices of those that a step changes.
        with_losses: List of the keys of the calls that have losses.
        noise: The state of the backend's generator before the first sweep.
        parts: `_Parts` of what the steps are given: what may have a gradient, and the
            rest.
    """

    def __init__(
        self, run, nodes, context, variables, changing, with_losses, noise, parts
    ):
        self.run, self.nodes, self.context = run, nodes, context
        self.variables, self.changing, self.with_losses = (
            variables,
            changing,
            with_losses,
        )
        self.noise, self.parts = noise, parts

    def backward(self, inputs, others, upstream):
        """The gradients with respect to the inputs, summed over all steps."""
        given = self.parts.joined(inputs, others)
        run = dataclasses.replace(self.run, mask=_or_none(given["mask"]))
        network = Network(
            run, self.nodes, **{**self.context, "chosen": _or_none(given["chosen"])}
        )

        def advance(t, carried):
            totals, *state = carried
            pull, state_after = backend.pullback(
                lambda *inputs: self._step(
                    network, self.parts.joined(inputs, others), t, *state
                ),
                inputs,
            )

            def sums():
                gradients = pull(self._of_step(upstream, t))
                return [
                    x if gradient is None else x + gradient
                    for x, gradient in zip(totals, gradients, strict=True)
                ]

            if network.context.chosen is None:
                return sums(), *state_after
            chosen = ops.take(network.context.chosen, t)
            if backend.replicas.count() > 1 and not backend.replicas.PROCESSES:
                # TensorFlow's replicas cannot exchange statistics in a branch.
                return [
                    ops.where(chosen, new, old)
                    for new, old in zip(sums(), totals, strict=True)
                ], *state_after
            return backend.cond(chosen, sums, totals), *state_after

        changed = [given["variables"][index] for index in self.changing]
        start = [given["drawn"].get(node.handler.call.key) for node in network.nodes]
        with backend.repeated_noise(self.noise):
            carried = advance(
                0, ([ops.zeros_like(tensor) for tensor in inputs], start, changed)
            )
            if run.timesteps > backend.unrolled_network_steps():
                carried = ops.fori_loop(1, run.timesteps, advance, carried)
            else:
                for t in range(1, run.timesteps):
                    carried = advance(t, carried)
        return carried[0]

    def _step(self, network, given, t, states, changed):
        """`([outputs, losses], (states, changed))` of one step."""
        masks = given["masks"]
        constants = {
            index: keras_internals.put_mask(x, masks.get(index))
            for index, x in given["constants"].items()
        }
        (states, outputs), changed = loops.in_scope(
            lambda: network.step(states, constants, t),
            self.variables,
            given["variables"],
            self.changing,
            changed,
        )
        outputs = tree.flatten(outputs)
        outputs = (
            list(filter(tree.is_float, outputs))
            if self.run.return_sequences
            else list(map(time_axis.widen, outputs))
        )
        pairs = zip(network.nodes, states, strict=True)
        losses: dict[Any, Any] = {}
        for node, state in pairs:
            # More than one node may be of a call.
            losses[node.handler.call.key] = plus(
                losses.get(node.handler.call.key), getattr(state, "loss", ())
            )
        return [*outputs, *(losses[key] for key in self.with_losses)], (states, changed)

    def _of_step(self, upstream, t):
        """The gradient of the results of one step."""
        if not self.run.return_sequences:
            return upstream
        outputs = len(upstream) - len(self.with_losses)
        return [
            *(ops.take(each, t, axis=1) for each in upstream[:outputs]),
            *upstream[outputs:],
        ]


def _or_none(tensor):
    return tensor if ops.is_tensor(tensor) else None


def _differentiable(given, variables):
    """Whether each leaf of the inputs of the steps may have a gradient."""
    return [
        *(tree.is_float(leaf) for leaf in tree.flatten(given["constants"])),
        *(False for _ in tree.flatten(given["masks"])),
        *(variable.trainable for variable in variables),
        *(
            False
            for _ in tree.flatten([given["drawn"], given["chosen"], given["mask"]])
        ),
    ]


class _Parts:
    """Splits a structure of tensors into two lists: flagged tensors and the others."""

    def __init__(self, structure, flags):
        self.structure = tree.map_leaves(lambda _: None, structure)
        self.flags = flags

    def split(self, structure):
        leaves = list(zip(tree.flatten(structure), self.flags, strict=True))
        return [leaf for leaf, flag in leaves if flag], [
            leaf for leaf, flag in leaves if not flag
        ]

    def joined(self, flagged, others):
        flagged, others, flags = iter(flagged), iter(others), iter(self.flags)
        return tree.map_leaves(
            lambda _: next(flagged if next(flags) else others), self.structure
        )
