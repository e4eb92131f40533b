"""The two parts of a network with time means: what runs at each step, and what runs once, on means."""

from keras_ratesnn._core import tree
from keras_ratesnn._graph.plan import Part, Slot
from keras_ratesnn.layer_kinds import ENCODER, NEURON, TIME_MEAN, TIME_MIXING, kind_of, wants_time_step


def parts_of(calls, inputs, outputs):
    """The `Part` of a network that runs at each step, and the one that runs once, on time means.

    Args:
        calls: List of `PlannedCall`, all calls of the network in order.
        inputs: List of the slots of the network's inputs.
        outputs: Structure of the slots of its outputs.

    Returns:
        The two parts, or `None` if there are no time means. The second begins with the calls of the time means.

    Raises:
        ValueError: If a call after time means needs time steps, or also has an input that is not a mean.
    """
    of_means: set[int] = set()
    means, before, after = [], [], []
    for call in calls:
        follows = [index in of_means for index in call.inputs]
        if any(follows):
            _check_after_means(call, all(follows))
            after.append(call)
        elif kind_of(call.operation).role == TIME_MEAN:
            means.append(call)
        else:
            before.append(call)
            continue
        of_means.update(output.index for output in call.outputs)
    if not means:
        return None
    others = [leaf for leaf in tree.flatten(outputs) if leaf.index not in of_means]
    averaged = [*(Slot(call.inputs[0]) for call in means), *others]
    # A TimeMean gives the mean its dtype, and is regularised, like any layer.
    return Part(before, inputs, averaged), Part([*means, *after], averaged, outputs)


def _check_after_means(call, follows_wholly):
    operation = call.operation
    name = f"{operation.name!r} of type {type(operation).__name__}"
    if not follows_wholly:
        raise ValueError(
            f"What follows a TimeMean runs once, on means. Received: {name}, with an input that follows a TimeMean and one "
            "that does not. Put a TimeMean before the other one, too."
        )
    if kind_of(operation).role in (NEURON, ENCODER, TIME_MIXING) or wants_time_step(type(operation)):  # type: ignore[arg-type]
        raise ValueError(
            f"What follows a TimeMean runs once, without time steps. Received: {name} after one, which needs time steps. Move "
            "the TimeMean behind it, or replace it by an ordinary layer, for example an activation."
        )
