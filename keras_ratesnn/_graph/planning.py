"""Makes the plan of a walk from a network's graph."""

import functools
import itertools
import weakref

import keras
from keras import ops

from keras_ratesnn._core import keras_internals, tree
from keras_ratesnn._graph import time_means
from keras_ratesnn._graph.functional import as_graph
from keras_ratesnn._graph.inputs import match_inputs, tensors_among
from keras_ratesnn._graph.plan import Part, Plan, PlannedCall, Slot


class _WithMask(keras.Operation):
    """Gives a tensor the Keras mask with which a nested model is called."""

    def call(self, tensor, mask):
        return keras_internals.put_mask(ops.copy(tensor), mask)

    def compute_output_spec(self, tensor, mask):
        return keras.KerasTensor(tensor.shape, tensor.dtype)


_plans: weakref.WeakKeyDictionary[keras.Model, Plan] = weakref.WeakKeyDictionary()


def plan_of(network):
    """The plan of a walk, cached because Keras' own graph traversal takes longer than many steps."""
    plan = _plans.get(network)
    if plan is None or any(as_graph(model) is not graph for model, graph in plan.nested):
        plan = _plans[network] = make_plan(network)
    return plan


def whole_of(network):
    """The `Part` of a whole network, with its time means."""
    return plan_of(network).whole


def parts_of(network):
    """The `Part` of a network that runs at each step, and the one that follows time means, `None` if there are none."""
    plan = plan_of(network)
    return plan.parts or (plan.whole, None)


def make_plan(network, inside=None):
    """The `Plan` of a network. Nested models, and the models `inside` layers, are walked into.

    Args:
        network: A Functional model, see `as_graph`.
        inside: See `walk`. Defaults to `None`.
    """
    indices = itertools.count()
    calls: list[PlannedCall] = []
    nested: list[tuple[keras.Model, keras.Model]] = []

    def slot():
        return Slot(next(indices))

    def with_mask(tensor, mask):
        if mask is None:
            return tensor
        masked = slot()
        inputs = [leaf.index for leaf in (tensor, mask) if isinstance(leaf, Slot)]
        calls.append(PlannedCall(_WithMask(), (tensor, mask), {}, inputs, [masked], str(len(calls)), takes_training=False))
        return masked

    def plan_operation(operation, training_of_model):
        def training_of(kwargs):
            training = keras_internals.training_in_graph(kwargs)
            return training_of_model if training is None else training

        def call_inside(*args, **kwargs):
            return run(inside[operation], tensors_among(args, kwargs, Slot), training_of(kwargs))

        def call_model(inputs, mask=None, **kwargs):
            graph = as_graph(operation)
            nested.append((operation, graph))
            slots = match_inputs(graph, inputs)
            if mask is not None:
                slots = [with_mask(each, of_it) for each, of_it in zip(slots, keras.tree.flatten(mask), strict=True)]
            return run(graph, slots, training_of(kwargs))

        def call(*args, **kwargs):
            training = training_of(kwargs)
            kwargs.pop("training", None)
            takes_training = keras_internals.takes_training(operation)
            if takes_training and training is not None:
                kwargs["training"], takes_training = training, False
            inputs = [leaf.index for leaf in tree.flatten((args, kwargs)) if isinstance(leaf, Slot)]
            outputs = [slot() for _ in keras.tree.flatten(operation.output)]
            calls.append(PlannedCall(operation, args, kwargs, inputs, outputs, str(len(calls)), takes_training))
            return outputs

        if inside and operation in inside:
            return call_inside
        return call_model if keras_internals.is_graph(operation) else call

    def run(graph, slots, training=None):
        return keras_internals.run_through_graph(graph, slots, functools.partial(plan_operation, training_of_model=training))

    inputs = [slot() for _ in network.inputs]
    outputs = run(network, inputs)
    return Plan(Part(calls, inputs, outputs), time_means.parts_of(calls, inputs, outputs), next(indices), nested)
