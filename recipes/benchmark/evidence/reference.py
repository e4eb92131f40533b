"""Stage: the reference cases of the repository on the device, without TF32, and what
TF32 changes."""

import pathlib
import sys

import keras
import numpy as np

from recipes import device
from recipes.atomic_files import one_line
from recipes.benchmark.evidence import flags, graphs, results

TOLERANCE = 1e-3
"""The largest relative error of a case that agrees."""

TESTS = pathlib.Path(__file__).parents[3] / "tests"

RECORDED = {"eager": False, "recorded": "auto"}
"""The values of `jit_compile` that are checked, by name."""


def run(write, names=None):
    """Writes a row for each case, and a second one with TF32 where the device has it.

    Args:
        write: Function that takes a row, a dictionary.
        names: Names of cases. Defaults to `None`, all.

    Raises:
        FileNotFoundError: Outside a checkout of the repository.
    """
    if not (TESTS / "reference_networks.py").is_file():
        raise FileNotFoundError(
            f"The reference cases are in tests/ of the repository, and {TESTS} has "
            "none. Use a clone."
        )
    sys.path.insert(0, str(TESTS))
    import reference_networks

    for name in names or reference_networks.CASES:
        # A case that fails does not end the stage.
        try:
            _check(write, name, reference_networks.Case(name))
        except Exception as error:
            write(
                {
                    "kind": "failed case",
                    "case": name,
                    "error": f"{type(error).__name__}: {one_line(error)}"[:500],
                }
            )


def _check(write, name, case):
    flags.fix(tf32=False)
    for mode, jit_compile in RECORDED.items():
        with graphs.recorded_at_once():
            found, way = trained(
                case, jit_compile, graphs.calls_before_replay(jit_compile)
            )
        errors = errors_of(case, found)
        row = {
            "kind": "reference",
            "case": name,
            "mode": mode,
            "way": way,
            "errors": errors,
        }
        write({**row, "agrees": results.largest(errors) < TOLERANCE})
    if device.gpu():
        flags.fix(tf32=True)
        found, _ = trained(case, jit_compile=False)
        write(
            {
                "kind": "tf32",
                "case": name,
                "errors": errors_of(case, found),
                **flips(case, found),
            }
        )


def trained(case, jit_compile, calls_before=0):
    """`(results, way)`: the `Results` of a case, see `results.of_training`, and the
    `engine` of its model."""
    keras.utils.clear_session(free_memory=False)
    model, settings = case.model(), case.settings
    shape, steps = case.arrays["logits"].shape, settings["sgd_steps"]
    return results.of_training(
        model,
        case.x,
        case.y,
        shape,
        case.loss,
        settings["lr"],
        steps,
        jit_compile,
        calls_before,
    )


def errors_of(case, found):
    """The largest relative error of each kind of result of a reference case, a
    dictionary.

    Args:
        case: `reference_networks.Case`.
        found: `Results`.
    """
    from reference_networks import reference_name

    expected = case.arrays["losses"]
    gradients = {
        reference_name(path): gradient for path, gradient in found.gradients.items()
    }
    moving = {reference_name(path): value for path, value in found.moving.items()}
    means = {
        name: value
        for name, value in case.expected("buffer").items()
        if name.endswith("running_mean")
    }
    return {
        "losses": float(np.max(np.abs(np.subtract(found.losses, expected) / expected))),
        "logits": results.relative_error(found.outputs, case.arrays["logits"]),
        "gradients": results.largest(
            results.gradient_errors(gradients, case.expected("grad"))
        ),
        "moving_means": results.largest(
            {
                name: results.relative_error(moving[name], mean)
                for name, mean in means.items()
            }
        ),
    }


def flips(case, found):
    """How many logits and predicted classes differ: a spike that flips moves a logit by
    more than rounding does."""
    expected = case.arrays["logits"]
    moved = np.abs(found.outputs - expected) > TOLERANCE * np.max(np.abs(expected))
    return {
        "logits": int(moved.size),
        "logits_moved": int(moved.sum()),
        "samples": len(expected),
        "classes_changed": int(np.sum(found.outputs.argmax(-1) != expected.argmax(-1))),
    }
