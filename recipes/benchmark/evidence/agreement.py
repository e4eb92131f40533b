"""Stage: recorded and compiled graphs against eager mode: losses and gradients."""

import keras
import numpy as np

from recipes.benchmark import cases
from recipes.benchmark.evidence import flags, graphs, results
from recipes.benchmark.settings import CLASSES

MODES = {"recorded": "auto", "compiled": True}
"""The values of `jit_compile` that can be compared with eager mode, by name."""

LEARNING_RATE = 0.01


def run(write, settings, steps, modes, compiler=None):
    """Writes a row for each method and mode.

    Args:
        write: Function that takes a row, a dictionary.
        settings: Dictionary, the arguments of `Settings`, with one T.
        steps: Integer, the number of training steps.
        modes: List of names in `MODES`.
        compiler: Name of one of PyTorch's compilers. Defaults to `None`, the one that
            the library uses.
    """
    settings = flags.configured(settings, tf32=False)
    for method in settings.methods:
        eager, _ = trained(settings, method, False, steps)
        for mode in modes:
            with graphs.recorded_at_once(), graphs.compiled_by(compiler):
                found, way = trained(settings, method, MODES[mode], steps)
            row = {
                "kind": "agreement",
                "method": method,
                "mode": mode,
                "way": way,
                "steps": steps,
                "compiler": compiler,
            }
            write({**flags.facts(settings), **row, "errors": errors_of(found, eager)})


def trained(settings, method, jit_compile, steps):
    """`(results, way)`: the `Results` of a model with the same weights and batch each
    time, and `SpikingModel.engine`."""
    keras.utils.clear_session(free_memory=False)
    cases.configure(settings)
    model = cases.trainer(settings, method, settings.timesteps[0])
    images, labels = (
        keras.ops.convert_to_numpy(tensor) for tensor in cases.batch(settings)
    )
    images = images.astype(keras.config.dtype_policy().compute_dtype)
    shape = len(labels), CLASSES
    before = graphs.calls_before_replay(jit_compile)
    return results.of_training(
        model,
        images,
        labels,
        shape,
        cases.loss(),
        LEARNING_RATE,
        steps,
        jit_compile,
        before,
    )


def errors_of(found, expected):
    """The largest relative differences of losses, and of gradients in the first and in
    the last step."""
    return {
        "losses": float(
            np.max(np.abs(np.subtract(found.losses, expected.losses) / expected.losses))
        ),
        "gradients": results.largest(
            results.gradient_errors(found.gradients, expected.gradients)
        ),
        "last_gradients": results.largest(
            results.gradient_errors(found.last_gradients, expected.last_gradients)
        ),
    }
