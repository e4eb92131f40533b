"""The exact gradient of all steps in little memory: depth is cut at spikes.

All steps of what lies between two layers of neurons run without gradient, and run again
in the backward pass. What is kept are spikes, packed as bits. A training step costs
about 4T forward passes; storing all activations costs 3T.
"""

import dataclasses
import functools
from typing import Any

from keras import ops

from keras_ratesnn._core import call_kernels, keras_internals, tree
from keras_ratesnn._core.backend import engine
from keras_ratesnn._core.packing import Packing
from keras_ratesnn.gradients.handlers import NeuronHandler
from keras_ratesnn.gradients.network import Constants, Network, plain_nodes
from keras_ratesnn.gradients.recomputation import Given, Split, or_none
from keras_ratesnn.gradients.time import loops
from keras_ratesnn.gradients.time.windows import Windows


def in_segments(run):
    """The outputs of a run in multi-step mode, whose segments run again."""
    network = _SegmentedNetwork(run, _up_to_neurons)
    # The backward pass reuses the variable reads of the forward pass.
    with engine.reading_once(run.network):
        states, outputs = network.run_steps(network.once())
    return network.commit(states, outputs)


def _up_to_neurons(calls, context):
    """The plain nodes in another order: for each layer of neurons, those that it needs
    and that did not come before, and itself; then what follows the last neurons."""
    nodes = list(plain_nodes(calls, context))
    producers = {slot: i for i, node in enumerate(nodes) for slot in node.outputs}
    left = dict.fromkeys(range(len(nodes)))
    for index, node in enumerate(nodes):
        if not isinstance(node.handler, NeuronHandler):
            continue
        needed, found = set(), [index]
        while found:
            one = found.pop()
            if one in left and one not in needed:
                needed.add(one)
                found += [producers[i] for i in nodes[one].inputs if i in producers]
        for one in sorted(needed):
            del left[one]
            yield nodes[one]
    yield from (nodes[one] for one in left)


class _SegmentedNetwork(Network):
    """A network whose segments, each up to a layer of neurons, run again in the
    backward pass. What follows the last neurons does not."""

    def _run_nodes(self, constants, act, states=None):
        self.kernels = constants.kernels
        return super()._run_nodes(constants, act, states)

    def _results_of_nodes(self, steps, tensors, act):
        results: list[Any] = []
        segment: list[Any] = []
        packed: dict[int, Any] = {}
        for step in steps:
            segment.append(step)
            if isinstance(step[0].handler, NeuronHandler):
                results += _Segment(self, segment, act).run(tensors, packed)
                segment = []
        return results + super()._results_of_nodes(segment, tensors, act)


class _Segment:
    """Nodes that run twice.

    Args:
        network: `Network`.
        steps: List of its nodes, each with its state and the slots that are free after
            it.
        act: Function `(handler, state, inputs) -> (state, outputs)` of all time steps.
    """

    def __init__(self, network, steps, act):
        self.network, self.act = network, act
        self.nodes = [node for node, *_ in steps]
        self.freed = [freed for *_, freed in steps]
        self.layers = list(dict.fromkeys(node.handler.operation for node in self.nodes))
        variables = [
            variable
            for layer in self.layers
            for variable in getattr(layer, "variables", ())
        ]
        self.variables = list({id(each): each for each in variables}.values())
        self.noise = engine.noise_state()

    def run(self, tensors, packed):
        """The states of the nodes.

        Args:
            tensors: Dictionary of tensors by their slots, which is given the outputs.
            packed: Dictionary of pairs of packed spikes and their `Packing`, by their
                slots, which is given those of the neurons.
        """
        given = self._given(tensors)
        stopped = engine.detached(lambda: given)
        states, outputs, losses, changed = engine.detached(
            self._computed, self.nodes, stopped
        )
        self._pack(outputs, packed)
        for index, value in changed.items():
            self.variables[index].assign(value)
        floats = list(filter(tree.is_float, outputs.values()))
        attached = self._with_backward([*floats, *losses.values()], given, packed)
        outputs_after = tree.filled(outputs, attached, tree.is_float)
        for index in set().union(*self.freed):
            tensors.pop(index, None)
        for index, output in outputs_after.items():
            tensors[index] = keras_internals.masked_as(output, outputs[index])
        for index in losses:
            states[index] = states[index]._replace(loss=next(attached))
        return states

    def _given(self, tensors):
        """All tensors that the nodes depend on."""
        read = dict.fromkeys(index for node in self.nodes for index in node.inputs)
        read = {index: tensors[index] for index in read if index in tensors}
        all_kernels = self.network.kernels
        kernels = {x: all_kernels[x] for x in self.layers if x in all_kernels}
        values = keras_internals.values_of(self.variables)
        # Those that are not trainable change, in place on PyTorch.
        values = [
            value if variable.trainable else ops.copy(value)
            for variable, value in zip(self.variables, values, strict=True)
        ]
        return Given.of(Constants(read, kernels), values, self.network.windows.mask)

    def _computed(self, nodes, given):
        """`(states, outputs, losses, changed)`: a list, and dictionaries of outputs by
        their slots, losses by the indices of nodes, and new values by the indices of
        variables."""
        constants, values = given.masked_constants(), given.variables
        tensors = dict(constants.tensors)
        steps = [
            (node, (), freed) for node, freed in zip(nodes, self.freed, strict=True)
        ]

        def walk():
            with call_kernels.using(constants.kernels):
                return Network._results_of_nodes(self.network, steps, tensors, self.act)

        states, after = loops.in_scope(
            walk, self.variables, values, range(len(values)), values
        )
        written = {index for node in nodes for index in node.outputs}
        losses = {i: getattr(state, "loss", ()) for i, state in enumerate(states)}
        return (
            states,
            {index: tensors[index] for index in tensors if index in written},
            {i: loss for i, loss in losses.items() if not tree.is_absent(loss)},
            {
                index: new
                for index, (old, new) in enumerate(zip(values, after, strict=True))
                if new is not old
            },
        )

    def _pack(self, outputs, packed):
        """Packs the spikes once, for all segments that read them."""
        node = self.nodes[-1]
        (index,), cell = node.outputs, node.handler.cell
        if index not in outputs:
            return
        spikes = outputs[index]
        packing = Packing(
            tuple(spikes.shape), spikes.dtype, cell.levels, cell.spike_size
        )
        if packing.fits and cell.states_levels:
            # If the compiler postponed the packing to the backward pass, the spikes
            # would stay in memory until then.
            computed, bits = engine.optimization_barrier(
                (spikes, packing.packed(spikes))
            )
            outputs[index] = keras_internals.masked_as(computed, spikes)
            packed[index] = bits, packing

    def _with_backward(self, values, given, packed):
        """An iterator over values that have the gradient of the segment."""
        split = Split(given, self.variables)
        inputs, constant = split.apart(given)
        packings, small = {}, dict(given.constants.tensors)
        for index in small:
            if index in packed:
                small[index], packings[index] = packed[index]
        constants = given.constants._replace(tensors=small)
        kept, _ = split.apart(given._replace(constants=constants))
        backward = functools.partial(self._backward, split, packings)
        return iter(engine.with_backward(values, inputs, constant, backward, kept))

    def _backward(self, split, packings, kept, constant, upstream):
        """The gradients of what may have one, given what is kept of it."""
        count = len(kept)
        kept = engine.postponed([*kept, *constant], upstream)
        given = split.joined(kept[:count], kept[count:])
        tensors = given.constants.tensors
        for index, packing in packings.items():
            spikes = packing.unpacked(tensors[index])
            tensors[index] = engine.differentiable(spikes)
        nodes = self._nodes_again(given)
        inputs, constant = split.apart(given)

        def segment(*inputs):
            given = split.joined(inputs, constant)
            _, outputs, losses, _ = self._computed(nodes, given)
            return [*filter(tree.is_float, outputs.values()), *losses.values()], ()

        with engine.repeated_noise(self.noise):
            pull, _ = engine.pullback(segment, inputs)
        return pull(upstream)

    def _nodes_again(self, given):
        """The nodes, whose handlers have the mask in time of the backward pass."""
        windows = Windows(self.network.windows.sizes, or_none(given.mask))
        context = dataclasses.replace(self.network.context, windows=windows)
        calls = [node.handler.call for node in self.nodes]
        nodes = list(plain_nodes(calls, context))
        for node, again in zip(self.nodes, nodes, strict=True):
            again.handler.static = node.handler.static
        return nodes
