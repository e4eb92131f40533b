"""Processes of their own: for steps of other libraries, as their users run them, and
for the peak memory of a process, which never decreases.

What this library sets for its whole process, such as how much freed memory is kept,
would change the steps of others too.
"""

import concurrent.futures
import dataclasses
import multiprocessing

from recipes import device
from recipes.benchmark import timing
from recipes.benchmark.settings import PEERS

_steps: dict = {}
"""The steps of this process, by name, if it is such a process."""


@dataclasses.dataclass(frozen=True)
class Elsewhere:
    """A step in another process, which times it.

    Attributes:
        process: A `ProcessPoolExecutor` of one process.
        name: The name of the step there.
    """

    process: concurrent.futures.ProcessPoolExecutor
    name: object

    def mean_seconds(self, clock, least_seconds):
        """`timing.mean_seconds` of the step, by the clock of its process."""
        return self.process.submit(_timed, self.name, clock, least_seconds).result()


def new_process():
    """A `ProcessPoolExecutor` of one process with an interpreter of its own, which has
    nothing of this one."""
    return concurrent.futures.ProcessPoolExecutor(
        1, multiprocessing.get_context("spawn")
    )


def made(processes, method, make, *arguments):
    """The result of `make(*arguments)`; for a method of another library, on a CPU, from
    a new process.

    Args:
        processes: `contextlib.ExitStack` with whose end the process ends.
        method: A name of `recipes.methods` or `PEERS`.
        make: Function of a module, which returns what is known of the steps, and a
            dictionary of steps by name.
        *arguments: Values that can be pickled.
    """
    if method not in PEERS or device.gpu():
        return make(*arguments)
    process = processes.enter_context(new_process())
    known, names = process.submit(_make, make, arguments).result()
    return known, {name: Elsewhere(process, name) for name in names}


def _make(make, arguments):
    known, steps = make(*arguments)
    _steps.update(steps)
    return known, list(steps)


def _timed(name, clock, least_seconds):
    return timing.mean_seconds(_steps[name], clock, least_seconds)
