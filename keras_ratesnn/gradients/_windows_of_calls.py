"""Which windows of time each operation has, where layers of neurons have different ones.

Neurons have windows of their own. Any other operation has those of its inputs: of several, windows that end wherever one of
theirs does. What changes with time from the start, such as frames, has those of the first neurons that follow.
"""

from collections.abc import Callable, Collection, Sequence

import keras

from keras_ratesnn._graph import PlannedCall
from keras_ratesnn.gradients.handlers import Context, handler_class
from keras_ratesnn.gradients.time.windows import Windows, refined
from keras_ratesnn.layer_kinds import NEURON, kind_of, wants_time_step

SizesOf = Callable[[keras.Operation], tuple[int, ...]]
"""From a layer of neurons to the sizes of its windows."""


def windows_of_calls(
    calls: Sequence[PlannedCall], in_time: Collection[int], sizes_of: SizesOf, context: Context
) -> tuple[dict[int, Windows], dict[str, Windows]]:
    """`(of_slots, of_calls)`: the windows of inputs, by their slots, and those of calls, by their keys.

    Args:
        calls: List of `PlannedCall`, in order.
        in_time: The slots of the inputs that change with time.
        sizes_of: `SizesOf`.
        context: `Context` of the run.
    """
    made: dict[tuple[int, ...], Windows] = {}

    def windows(sizes):
        return made.setdefault(sizes, Windows(sizes, context.windows.mask))

    def of_first_neurons(slots):
        reached = {*slots}
        for call in calls:
            if not reached.isdisjoint(call.inputs):
                if kind_of(call.operation).role == NEURON:
                    return sizes_of(call.operation)
                reached.update(slot.index for slot in call.outputs)
        return context.windows.sizes

    sizes = {index: of_first_neurons([index]) for index in in_time}
    of_slots, of_calls = {index: windows(each) for index, each in sizes.items()}, {}
    for call in calls:
        outputs, operation = [slot.index for slot in call.outputs], call.operation
        given = [sizes[index] for index in call.inputs if index in sizes]
        if kind_of(operation).role == NEURON:
            own = sizes_of(operation)
        elif given:
            own = refined(given)
        elif wants_time_step(type(operation)) or not handler_class(call, context).is_static_if_inputs_are:  # type: ignore[arg-type]
            own = of_first_neurons(outputs)
        else:
            continue
        of_calls[call.key] = windows(own)
        sizes.update(dict.fromkeys(outputs, own))
    return of_slots, of_calls
