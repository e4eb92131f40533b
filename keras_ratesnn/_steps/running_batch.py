"""The time steps of a batch, one after the other, compiled once for each number of
rows."""

import contextlib
import weakref
from typing import Any

from keras import ops

from keras_ratesnn import _graph
from keras_ratesnn._core import keras_internals, time_axis, tree
from keras_ratesnn._core.annotations import Structure, Tensor
from keras_ratesnn._core.backend import engine
from keras_ratesnn.gradients.network import Constants, Network
from keras_ratesnn.gradients.run import Run
from keras_ratesnn.spiking_model import SpikingModel


class RunningBatch:
    """A batch of a model that is run step by step, in inference.

    What is the same at every step is computed at the first one, and kept like the
    states of neurons.

    Args:
        model: A `SpikingModel`.
        pairs: List of `(tensor, has_time)`, its inputs.
        mask: Boolean tensor `(batch, T)`, false for padding, or `None`.
    """

    def __init__(
        self, model: SpikingModel, pairs: list[tuple[Tensor, bool]], mask: Tensor | None
    ) -> None:
        kept = {
            "inputs": [_mask_beside(tensor) for tensor, _ in pairs],
            "mask": () if mask is None else mask,
        }
        self._kept = tree.flatten(kept)
        self._steps = _steps_of(
            model,
            tuple(timed for _, timed in pairs),
            tree.map_leaves(lambda _: None, kept),
        )

    def advance(self, t: int) -> Tensor:
        """The output of step t, `(rows, classes)`, in float32 or wider."""
        with self._steps.context():
            number = [] if t == 0 else [ops.convert_to_tensor(t, "int32")]
            step = self._steps.later if number else self._steps.first
            output, *self._kept = step([*self._kept, *number])
            return output

    def keep(self, rows: Tensor) -> None:
        """Goes on with these rows alone, in this order."""
        with self._steps.context():
            self._kept = self._steps.rows_of([*self._kept, rows])


class _Steps:
    """The compiled functions of a model as it was when this was made, of lists of
    tensors.

    Attributes:
        first: From the inputs to the output of the first step, followed by what is
            kept.
        later: From that, followed by the number of the step, to the same of a later
            step.
        rows_of: From that, followed by the numbers of rows, to these rows.
    """

    def __init__(self, model, has_time, structure):
        self._network, self._timesteps, self._has_time = (
            _graph.as_graph(model.network),
            model.timesteps,
            has_time,
        )
        self._graphs, self._jit_compile = model._graphs, model._asked_jit_compile
        # Their ids are part of the key of this object.
        self._variables = model.variables
        self._at_first: Structure = structure
        self._later_on: Structure = None
        self.first, self.later, self.rows_of = map(
            self._compiled, (self._first_step, self._later_step, _rows)
        )

    def _compiled(self, function):
        settings = function.__name__, self._timesteps, self._has_time
        return engine.compiled(
            function, self._network, self._graphs, settings, self._jit_compile
        )

    @contextlib.contextmanager
    def context(self):
        fusing = engine.fusing(
            self._jit_compile is not False, False, self._graphs.loops
        )
        with fusing, engine.no_gradient(), keras_internals.in_steps():
            yield

    def _first_step(self, tensors):
        kept = tree.filled(self._at_first, tensors)
        running = self._running(kept)
        constants = running.once()
        states, output = running.step(None, constants, 0)
        read = {slot.index for slot in tree.flatten(running.outputs)}.union(
            *(node.inputs for node in running.nodes)
        )
        read.difference_update(index for index, _ in running.inputs)
        static = {
            index: _mask_beside(constants.tensors[index])
            for index in sorted(read)
            if index in constants.tensors
        }
        return self._results(running, {**kept, "static": static}, states, output)

    def _later_step(self, tensors):
        *tensors, t = tensors
        kept = tree.filled(self._later_on, tensors)
        running = self._running(kept)
        constant = {
            index: tensor
            for (index, _), (tensor, _) in zip(
                running.inputs, running.run.inputs, strict=True
            )
        }
        constant.update(
            (index, _mask_on(pair)) for index, pair in kept["static"].items()
        )
        states = running.resumed(kept["carried"])
        constants = Constants(constant, kernels={})
        return self._results(running, kept, *running.step(states, constants, t))

    def _results(self, running, kept, states, outputs):
        (output,) = tree.flatten(running.with_nan_of_membranes(states, outputs))
        kept = {**kept, "carried": running.carried(states)}
        self._later_on = tree.map_leaves(lambda _: None, kept)
        return list(
            map(ops.convert_to_tensor, [time_axis.widen(output), *tree.flatten(kept)])
        )

    def _running(self, kept):
        """The network of one step."""
        run = Run(
            parts=(_graph.whole_of(self._network), None, None),
            inputs=list(
                zip(map(_mask_on, kept["inputs"]), self._has_time, strict=True)
            ),
            timesteps=self._timesteps,
            step_mode="single",
            network=self._network,
            mask=None if tree.is_absent(kept["mask"]) else kept["mask"],
        )
        return Network(run)


_made: weakref.WeakKeyDictionary[SpikingModel, dict[Any, _Steps]] = (
    weakref.WeakKeyDictionary()
)


def _steps_of(model, has_time, structure):
    """The steps of a model as it is now, for inputs in this structure."""
    key = (
        has_time,
        repr(structure),
        model.timesteps,
        model._asked_jit_compile,
        tuple(map(id, model.variables)),
    )
    made = _made.setdefault(model, {})
    if key not in made:
        made[key] = _Steps(model, has_time, structure)
    return made[key]


def _rows(tensors):
    """Some rows of all tensors, of which the last has their numbers. What neurons share
    has no row for each sample."""
    *tensors, rows = tensors
    batch = tensors[0].shape[0]
    return [
        ops.take(x, rows, axis=0) if len(x.shape) and x.shape[0] == batch else x
        for x in tensors
    ]


def _mask_beside(tensor):
    """A tensor and its Keras mask, `()` if there is none, for functions that take and
    return tensors."""
    mask = keras_internals.mask_of(tensor)
    return tensor, () if mask is None else mask


def _mask_on(pair):
    tensor, mask = pair
    return tensor if tree.is_absent(mask) else keras_internals.put_mask(tensor, mask)
