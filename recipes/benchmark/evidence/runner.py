"""Runs the kit: stages as processes, several at once where nothing is timed, each with
a deadline, and all with one."""

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

from recipes import device
from recipes.benchmark.evidence import journal, plan, tables
from recipes.benchmark.evidence.stage import PARTLY
from recipes.command_line import mistakes

LOG = "evidence.log"
"""What the processes print."""

CORES_OF_A_STAGE = 2
"""Cores for each stage of those that run at once; compilers use more than one."""

LEAST_SECONDS = 15
"""With less time left no stage is started: it would end before its first row."""

NO_TIME = "no time was left"
NOT_COMPILED = "not compiled in time"


def main(folder):
    """Runs the kit with an output folder, a path, or what an earlier run has left over;
    returns the exit status."""
    with mistakes():
        device.check_backend(
            "torch",
            "--evidence starts from PyTorch; the rows of JAX come from a process of "
            "its own.",
        )
        folder.mkdir(parents=True, exist_ok=True)
    path = folder / journal.NAME
    stages = plan.on_gpu() if device.gpu() else plan.on_cpu()
    left = plan.remaining(stages, journal.rows(path) if path.exists() else [])
    run(left, folder, plan.TOTAL_SECONDS, plan.UNTIMED_SECONDS)
    text = tables.markdown(journal.rows(path))
    (folder / "evidence.md").write_text(text + "\n")
    print(text)
    return 0


def run(stages, folder, total_seconds, untimed_seconds, start=None):
    """Runs stages: first those that time nothing, several at once, then the others in
    turn.

    A stage that fails or exceeds its deadline is recorded as such, and the rest still
    runs. Each stage gets a row of kind `"stage"` with its `status`: "done", "partly",
    "failed", "deadline" or "skipped"; what it leaves out for lack of time gets rows of
    kind `"left out"`.

    Args:
        stages: List of `plan.Stage`, the most important first.
        folder: Path of the folder for the rows and the log.
        total_seconds: Number, the deadline for all of them.
        untimed_seconds: Number, the deadline for those that time nothing.
        start: Function `(stage, path, log)` that starts a process with
            `subprocess.Popen`. Defaults to `None`, the function `process_of`.
    """
    begin = time.time()
    at_once = max(1, (os.cpu_count() or 1) // CORES_OF_A_STAGE)
    with open(folder / LOG, "a") as log:
        runner = _Runner(folder / journal.NAME, log, start or process_of)
        runner.run(
            [stage for stage in stages if not stage.timed],
            at_once,
            begin + min(untimed_seconds, total_seconds),
        )
        runner.run([stage for stage in stages if stage.timed], 1, begin + total_seconds)


def process_of(stage, path, log):
    """Starts the process of a stage, in a group of its own, so that compilers that it
    starts end with it."""
    command = [
        sys.executable,
        "-m",
        "recipes.benchmark.evidence.stage",
        str(path),
        json.dumps(dataclasses.asdict(stage)),
    ]
    environment = {**os.environ, **stage.environment, "KERAS_BACKEND": stage.backend}
    return subprocess.Popen(
        command, stdout=log, stderr=log, env=environment, start_new_session=True
    )


class _Runner:
    def __init__(self, path, log, start):
        self._path, self._log, self._start = path, log, start
        self._running, self._done = [], set()

    def run(self, stages, at_once, end):
        """Runs stages, each in a process, for which a thread waits."""
        with concurrent.futures.ThreadPoolExecutor(at_once) as threads:
            waiting = [threads.submit(self._run, stage, end) for stage in stages]
            try:
                for ended in waiting:
                    ended.result()
            finally:
                threads.shutdown(wait=False, cancel_futures=True)
                for process in self._running:
                    _kill(process)

    def _run(self, stage, end):
        begin = time.time()
        if end - begin < LEAST_SECONDS:
            self._write(stage, "skipped", 0.0, reason=NO_TIME)
            return
        stage, missing = plan.prepared(stage, self._done)
        for method in missing:
            row = {
                "stage": stage.name,
                "kind": "left out",
                "method": method,
                "reason": NOT_COMPILED,
            }
            journal.append(self._path, row)
        if missing and not plan.has_methods(stage):
            self._write(stage, "skipped", 0.0, reason=NOT_COMPILED)
            return
        print(f"{stage.name} ...", file=sys.stderr, flush=True)
        deadline = min(begin + stage.seconds, end)
        process = self._start(plan.with_end(stage, deadline), self._path, self._log)
        self._running.append(process)
        try:
            code = process.wait(deadline - time.time())
        except subprocess.TimeoutExpired:
            _kill(process)
            code = None
        self._running.remove(process)
        status = {
            None: "deadline",
            PARTLY: "partly",
            0: "partly" if missing else "done",
        }.get(code, "failed")
        if status == "done":
            self._done.add(stage.name)
        self._write(stage, status, time.time() - begin, exit=code)

    def _write(self, stage, status, seconds, **more):
        told = {
            "status": status,
            "seconds": round(seconds, 1),
            "deadline": stage.seconds,
            **more,
        }
        journal.append(self._path, {"stage": stage.name, "kind": "stage", **told})
        print(
            f"{stage.name}: {status} after {seconds:.0f} s", file=sys.stderr, flush=True
        )


def _kill(process):
    # The group may be gone already.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
