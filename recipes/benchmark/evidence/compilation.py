"""Stage: compiles the graphs that are timed later, into the cache of PyTorch's
compiler.

Compilation takes longer than all the rest of the kit, needs only a core or two, and
needs no quiet machine.
"""

import functools

from recipes.benchmark import cases, measure
from recipes.benchmark.evidence import flags, graphs


def run(write, settings, tf32):
    """Writes a row for each method: what its first training step took, which compiles.

    Args:
        write: Function that takes a row, a dictionary.
        settings: Dictionary, the arguments of `Settings`, with one T.
        tf32: Boolean, as for the steps that are timed: it is part of what the cache
            depends on.
    """
    settings = flags.configured({**settings, "jit_compile": True}, tf32)
    for method in settings.methods:
        model = cases.trainer(settings, method, settings.timesteps[0])
        step = functools.partial(model.train_on_batch, *cases.batch(settings))
        with graphs.recorded_at_once():
            seconds = measure.warm_up(
                step, measure.compiling_calls(settings, method)
            ).compiling_seconds
        write(
            {
                "kind": "compiled",
                **flags.facts(settings),
                "method": method,
                "seconds": sum(seconds),
            }
        )
