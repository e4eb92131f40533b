"""Interleaved runs, the floor, and medians with their spreads."""

import functools
import time

import numpy as np

from recipes import device

LEAST_SECONDS = 0.1
"""A step is repeated within a round for this long: training runs the same step many
times in a row, with warm caches."""


def interleaved(steps, rounds, clock=time.perf_counter, least_seconds=0.0):
    """Times steps in turn, so that background load affects all of them.

    Args:
        steps: Dictionary from names to functions without arguments, which return when
            the device is done, or to steps of other processes, `processes.Elsewhere`.
        rounds: Integer, the number of runs of each step.
        clock: Function that returns the time in seconds. Defaults to
            `time.perf_counter`.
        least_seconds: Float: within a round a step is repeated until this much time has
            passed. Defaults to `0.0`, once.

    Returns:
        Dictionary from names to lists of seconds, the mean duration of a step in each
        round.
    """
    seconds = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            measured = getattr(step, "mean_seconds", None) or functools.partial(
                mean_seconds, step
            )
            seconds[name].append(measured(clock, least_seconds))
    return seconds


def mean_seconds(step, clock, least_seconds):
    """The mean duration of a step, which is repeated until the least time has passed,
    once at least."""
    begin, repetitions, elapsed = clock(), 0, 0.0
    while repetitions == 0 or elapsed < least_seconds:
        step()
        repetitions, elapsed = repetitions + 1, clock() - begin
    return elapsed / repetitions


def in_turns(steps, rounds, threads=None):
    """Times steps in turn, each repeated for `LEAST_SECONDS` within a round.

    Args:
        steps: Dictionary, as in `interleaved`.
        rounds: Integer.
        threads: Integer, those of the CPU. The time of one is that of the processor:
            what else runs counts less. Defaults to `None`, that of the clock.

    Returns:
        As `interleaved`.
    """
    is_one_core = threads == 1 and not device.gpu()
    clock = time.process_time if is_one_core else time.perf_counter
    return interleaved(steps, rounds, clock, LEAST_SECONDS)


def floor(ordinary, forward, timesteps):
    """The lower bound for a training step with T time steps: T - 1 forward passes, and
    a training step without time.

    Args:
        ordinary: List of seconds, a training step of the network without time in each
            round.
        forward: List of seconds, a forward pass of that network in each round.
        timesteps: Integer T.

    Returns:
        List of seconds.
    """
    return [
        step + (timesteps - 1) * once
        for step, once in zip(ordinary, forward, strict=True)
    ]


def ratios(seconds, floors):
    """The ratio of each round to the floor of the same round."""
    return [value / least for value, least in zip(seconds, floors, strict=True)]


def spread(values):
    """The median and the quartiles of a list, as a dictionary."""
    lower, median, upper = (
        float(value) for value in np.percentile(values, [25, 50, 75])
    )
    return {"median": median, "lower_quartile": lower, "upper_quartile": upper}


def with_quartiles(spread, scale, digits):
    """The result of `spread` as text, in units of `1 / scale`."""
    median, lower, upper = (
        spread[key] * scale for key in ("median", "lower_quartile", "upper_quartile")
    )
    return f"{median:.{digits}f} ({lower:.{digits}f} to {upper:.{digits}f})"
