"""The time loops of neuron layers under XLA, unrolled or compiled as loops; and forms
of a training step, measured in turn."""

import gc
import sys

import keras_ratesnn
from recipes.benchmark import cases, measure, timing


def unrolled(choice):
    """A context in which XLA unrolls the time loop of every neuron layer, or of none.

    Programs that are compiled in the context keep their loops afterwards.

    Args:
        choice: Boolean; `None` leaves the choice to the library.
    """
    if choice is None:
        return keras_ratesnn.engine_settings()
    limit = sys.maxsize if choice else 1
    return keras_ratesnn.engine_settings(
        unrolled_steps={kind: {False: limit, True: limit} for kind in ("cpu", "gpu")}
    )


def compared(forms, method, timesteps, further=lambda form, model: {}):
    """Measures forms of a training step in turn.

    Args:
        forms: Dictionary from names to `(settings, choice)`: `Settings`, and the
            argument of `unrolled`.
        method: Name of `recipes.methods`, or `ORDINARY`.
        timesteps: Integer T.
        further: Function of a name and its model that returns a dictionary of what else
            is told of it. Defaults to nothing.

    Returns:
        Dictionary from the names to dictionaries: `seconds` and `ratio`, that to the
        last form, as `timing.spread`, `compile_seconds`, `memory_bytes` and what
        `further` tells.
    """
    warm, rows = {}, {}
    for form, (settings, choice) in forms.items():
        model = cases.trainer(settings, method, timesteps)
        with unrolled(choice):
            warm[form] = measure.warm_trainer(settings, method, timesteps, None, model)
            rows[form] = {
                "memory_bytes": warm[form].memory_bytes,
                **further(form, model),
            }
    seconds = timing.in_turns(warm, settings.rounds)
    for form, row in rows.items():
        row["seconds"] = timing.spread(seconds[form])
        row["ratio"] = timing.spread(
            timing.ratios(seconds[form], [*seconds.values()][-1])
        )
        row["compile_seconds"] = measure.compile_seconds(
            warm[form].compiling_seconds, row["seconds"]["median"]
        )
    # Models contain reference cycles; the next forms need their memory.
    del warm, model
    gc.collect()
    return rows
