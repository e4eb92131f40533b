"""Runs stages as processes: several at once where nothing is timed, each with a deadline, and all with one."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

from recipes.benchmark.evidence import journal

LOG = "evidence.log"
"""What the processes print."""

POLL_SECONDS = 0.1

CORES_OF_A_STAGE = 2
"""Cores for each stage of those that run at once; compilers use more than one."""

LEAST_SECONDS = 5
"""With less time left no stage is started."""


def run(stages, folder, total_seconds, start=None):
    """Runs stages: first those that time nothing, several at once, then the others in turn.

    A stage that fails or exceeds its deadline is recorded as such, and the rest still runs. Each stage gets a row of kind
    `"stage"` with its `status`: "done", "failed", "deadline" or "skipped".

    Args:
        stages: List of `plan.Stage`.
        folder: Path of the folder for the rows and the log.
        total_seconds: Number, the deadline for all of them.
        start: Function `(stage, path, log)` that starts a process with `subprocess.Popen`. Defaults to `None`, the function
            `process_of`.
    """
    end = time.monotonic() + total_seconds
    at_once = max(1, (os.cpu_count() or 1) // CORES_OF_A_STAGE)
    with open(folder / LOG, "a") as log:
        runner = _Runner(folder / journal.NAME, log, end, start or process_of)
        runner.run([stage for stage in stages if not stage.timed], at_once)
        runner.run([stage for stage in stages if stage.timed], 1)


def process_of(stage, path, log):
    """Starts the process of a stage, in a group of its own, so that compilers that it starts end with it."""
    command = [sys.executable, "-m", "recipes.benchmark.evidence.stage", str(path), json.dumps(dataclasses.asdict(stage))]
    environment = {**os.environ, **stage.environment, "KERAS_BACKEND": stage.backend}
    return subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)


class _Runner:
    def __init__(self, path, log, end, start):
        self._path = path
        self._log = log
        self._end = end
        self._start = start
        self._running = []

    def run(self, stages, at_once):
        pending = list(stages)
        try:
            while pending or self._running:
                while pending and len(self._running) < at_once:
                    self._begin(pending.pop(0))
                time.sleep(POLL_SECONDS)
                self._running = [running for running in self._running if not self._ended(*running)]
        finally:
            for _, process, *_ in self._running:
                _kill(process)

    def _begin(self, stage):
        now = time.monotonic()
        if self._end - now < LEAST_SECONDS:
            self._write(stage, "skipped", 0.0)
            return
        print(f"{stage.name} ...", file=sys.stderr, flush=True)
        process = self._start(stage, self._path, self._log)
        self._running.append((stage, process, now, min(now + stage.seconds, self._end)))

    def _ended(self, stage, process, begin, deadline):
        """Whether the process has ended, or was ended at its deadline."""
        code, now = process.poll(), time.monotonic()
        if code is None and now < deadline:
            return False
        if code is None:
            _kill(process)
        status = "deadline" if code is None else "done" if code == 0 else "failed"
        self._write(stage, status, now - begin, code)
        return True

    def _write(self, stage, status, seconds, code=None):
        row = {"kind": "stage", "status": status, "seconds": round(seconds, 1), "deadline": stage.seconds, "exit": code}
        journal.Journal(self._path, stage=stage.name).write(row)
        print(f"{stage.name}: {status} after {seconds:.0f} s", file=sys.stderr, flush=True)


def _kill(process):
    # The group may be gone already.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
