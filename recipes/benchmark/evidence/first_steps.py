"""Stage: the time of the first training steps with empty caches, until the graph is
replayed."""

import functools
import os
import tempfile
import time

from recipes import device
from recipes.benchmark import cases, measure
from recipes.benchmark.evidence import flags

CACHES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
"""The environment variables that name the folders of PyTorch's and Triton's
compilers."""


def run(write, settings, tf32):
    """Writes a row: the number of steps up to the first that replays the graph, and
    their seconds.

    Args:
        write: Function that takes a row, a dictionary.
        settings: Dictionary, the arguments of `Settings`, with one method and one T.
        tf32: Boolean.
    """
    with tempfile.TemporaryDirectory() as empty:
        os.environ.update({name: os.path.join(empty, name) for name in CACHES})
        settings = flags.configured(settings, tf32)
        (method,), (timesteps,) = settings.methods, settings.timesteps
        model = cases.trainer(settings, method, timesteps)
        step = functools.partial(model.train_on_batch, *cases.batch(settings))
        steps = max(measure.compiling_calls(settings, method)) + 1
        begin = time.perf_counter()
        for _ in range(steps):
            step()
        device.synchronize()
        seconds, used = (
            time.perf_counter() - begin,
            {"jit_compile": settings.jit_compile, "way": model.engine},
        )
        write(
            {
                "kind": "first steps",
                **flags.facts(settings),
                "method": method,
                **used,
                "steps": steps,
                "seconds": seconds,
            }
        )
