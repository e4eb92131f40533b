"""Runs stages as processes: several at once where nothing is timed, each with a deadline, and all with one."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

from recipes.benchmark.evidence import journal, plan
from recipes.benchmark.evidence.stage import PARTLY

LOG = "evidence.log"
"""What the processes print."""

POLL_SECONDS = 0.1

CORES_OF_A_STAGE = 2
"""Cores for each stage of those that run at once; compilers use more than one."""

LEAST_SECONDS = 15
"""With less time left no stage is started: it would end before its first row."""

NO_TIME = "no time was left"
NOT_COMPILED = "not compiled in time"


def run(stages, folder, total_seconds, untimed_seconds, start=None):
    """Runs stages: first those that time nothing, several at once, then the others in turn.

    A stage that fails or exceeds its deadline is recorded as such, and the rest still runs. Each stage gets a row of kind
    `"stage"` with its `status`: "done", "partly", "failed", "deadline" or "skipped"; what it leaves out for lack of time gets
    rows of kind `"left out"`.

    Args:
        stages: List of `plan.Stage`, the most important first.
        folder: Path of the folder for the rows and the log.
        total_seconds: Number, the deadline for all of them.
        untimed_seconds: Number, the deadline for those that time nothing.
        start: Function `(stage, path, log)` that starts a process with `subprocess.Popen`. Defaults to `None`, the function
            `process_of`.
    """
    begin = time.time()
    at_once = max(1, (os.cpu_count() or 1) // CORES_OF_A_STAGE)
    with open(folder / LOG, "a") as log:
        runner = _Runner(folder / journal.NAME, log, start or process_of)
        runner.run([stage for stage in stages if not stage.timed], at_once, begin + min(untimed_seconds, total_seconds))
        runner.run([stage for stage in stages if stage.timed], 1, begin + total_seconds)


def process_of(stage, path, log):
    """Starts the process of a stage, in a group of its own, so that compilers that it starts end with it."""
    command = [sys.executable, "-m", "recipes.benchmark.evidence.stage", str(path), json.dumps(dataclasses.asdict(stage))]
    environment = {**os.environ, **stage.environment, "KERAS_BACKEND": stage.backend}
    return subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)


class _Runner:
    def __init__(self, path, log, start):
        self._path = path
        self._log = log
        self._start = start
        self._running = []
        self._done = set()

    def run(self, stages, at_once, end):
        pending = list(stages)
        try:
            while pending or self._running:
                while pending and len(self._running) < at_once:
                    self._begin(pending.pop(0), end)
                time.sleep(POLL_SECONDS)
                self._running = [running for running in self._running if not self._ended(*running)]
        finally:
            for _, process, *_ in self._running:
                _kill(process)

    def _begin(self, stage, end):
        now = time.time()
        if end - now < LEAST_SECONDS:
            self._write(stage, "skipped", 0.0, reason=NO_TIME)
            return
        stage, missing = plan.prepared(stage, self._done)
        for method in missing:
            journal.Journal(self._path, stage=stage.name).write({"kind": "left out", "method": method, "reason": NOT_COMPILED})
        if missing and not plan.has_methods(stage):
            self._write(stage, "skipped", 0.0, reason=NOT_COMPILED)
            return
        print(f"{stage.name} ...", file=sys.stderr, flush=True)
        deadline = min(now + stage.seconds, end)
        process = self._start(plan.with_end(stage, deadline), self._path, self._log)
        self._running.append((stage, process, now, deadline, bool(missing)))

    def _ended(self, stage, process, begin, deadline, is_partial):
        """Whether the process has ended, or was ended at its deadline."""
        code, now = process.poll(), time.time()
        if code is None and now < deadline:
            return False
        if code is None:
            _kill(process)
            status = "deadline"
        elif code in (0, PARTLY):
            status = "partly" if code == PARTLY or is_partial else "done"
        else:
            status = "failed"
        if status == "done":
            self._done.add(stage.name)
        self._write(stage, status, now - begin, exit=code)
        return True

    def _write(self, stage, status, seconds, **more):
        row = {"kind": "stage", "status": status, "seconds": round(seconds, 1), "deadline": stage.seconds, **more}
        journal.Journal(self._path, stage=stage.name).write(row)
        print(f"{stage.name}: {status} after {seconds:.0f} s", file=sys.stderr, flush=True)


def _kill(process):
    # The group may be gone already.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
