"""All questions about a GPU, in nine minutes: `python -m recipes.benchmark.gpu OUT`.

Each question has a process of its own and a deadline. What is not timed comes first,
several at once, for 230 s at most: the reference cases, which without TF32 must agree
within 1e-3; recorded and compiled graphs against eager mode; and the compilation of
what is timed later. Then the others run one after the other, the most important first:
training steps of a ResNet-18 (width 1, batch 128, 32x32, T = 4 and 8; float32 as TF32,
and `mixed_bfloat16`) by the library's methods, recorded and compiled, an ordinary step,
the floor, and SpikingJelly with its fastest neurons, with its PyTorch neurons, and with
levels 1 to 4 of its memory optimisation; the first training steps with empty caches; on
JAX unrolled and compiled time loops; and `channels_first`.

Of each step there are the time and its ratio to the floor, the time in which the GPU is
busy, kernels, copies, launches, waits for the GPU, fetches (`.item()`), and memory. The
floor is Keras in eager mode, where a GPU often waits for the host, so a ratio of times
alone would flatter the library: only "busy to floor" says how much work a method adds.
Recorded graphs contain the compiled time loops of neurons, as after the 32 calls in
eager mode that `"auto"` makes. `answers.py` measures.

Each row is in OUT/evidence.jsonl as soon as it is measured. A question that fails or
exceeds its deadline is recorded, and the rest is still asked; the same command asks
again what is not answered. On a CPU it asks small questions, to show that it works.
"""

import concurrent.futures
import contextlib
import dataclasses
import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import time

from recipes import command_line, markdown
from recipes.benchmark.settings import PEERS

ROWS, LOG, TABLES = "evidence.jsonl", "evidence.log", "evidence.md"
"""The files: what is measured, what the processes print, and the tables."""

NOT_EVIDENCE = (
    "**Not evidence.** No GPU was found, so the questions were small, only to show "
    "that they are answered."
)

TOTAL_SECONDS = 510
"""The deadline of the whole run: less than nine minutes, also where Python takes long
to start."""

UNTIMED_SECONDS = 230
"""The deadline of what is not timed: most of the rest is for what is, also where few
cores compile slowly."""

LEAST_SECONDS = 15
"""With less time left no question is asked: it would end before its first row."""

CORES_OF_A_PROCESS = 2
"""Of those that run at once; compilers use more than one."""

METHODS = ("rate-multi", "rate-single", "bptt-multi")
PEER = "spikingjelly"
SMALL = {"width": 0.25, "batch": 16, "timesteps": (4,), "methods": METHODS}
TINY = {
    "width": 0.125,
    "batch": 2,
    "size": 8,
    "rounds": 2,
    "timesteps": (2,),
    "methods": METHODS[:1],
}
"""The arguments of `Settings` for graphs that are compared, and for all on a CPU."""


@dataclasses.dataclass(frozen=True)
class Question:
    """A part of the run, which has a process of its own.

    Attributes:
        name: String, unique.
        answer: Name of a function of `answers.py`, which takes a function that writes a
            row, and the options.
        seconds: Number, the deadline.
        options: Dictionary of what JSON can represent.
        engine: Dictionary, arguments of `keras_ratesnn.engine_settings`.
        is_timed: Boolean, whether it needs a quiet machine.
        backend: Name of the Keras backend.
        environment: Dictionary of further environment variables.
    """

    name: str
    answer: str
    seconds: float
    options: dict = dataclasses.field(default_factory=dict)
    engine: dict = dataclasses.field(default_factory=dict)
    is_timed: bool = False
    backend: str = "torch"
    environment: dict = dataclasses.field(default_factory=dict)


def questions(is_gpu):
    """The questions, the most important first, a list. On a CPU they are small, and
    graphs are prepared for a compiler, but interpreted."""
    network, names = SMALL, None
    tables = [
        _table_settings(timesteps, precision)
        for precision in ("float32", "mixed_bfloat16")
        for timesteps in (4, 8)
    ]
    peers = [PEER] if _is_installed(PEER) else []
    levels = [name for name, peer in PEERS.items() if peer.memopt]
    if not is_gpu:
        tables, network, levels = [TINY], TINY, levels[:1]
        names = ["mlp_rate_m", "mlp_bptt_m", "res_rate_m", "vgg_rate_s"]
    asked = [
        Question("about", "about", 60, {"is_evidence": is_gpu}),
        Question("reference", "reference", 150, {"names": names}),
    ]
    for jit_compile, seconds in (("auto", 80), (True, 170)):
        for precision in ("float32", "float64"):
            settings = {**network, "precision": precision, "jit_compile": jit_compile}
            asked.append(_question("agreement", settings, seconds))
        if jit_compile == "auto":
            asked += [
                _question(
                    "compilation",
                    {**table, "methods": (method,), "jit_compile": True},
                    UNTIMED_SECONDS,
                )
                for method in network["methods"]
                for table in tables
            ]
    for some in (tables[:2], tables[2:]):
        for table in some:
            first, *rest = table["methods"]
            settings = {**table, "methods": (first, *peers, *rest)}
            asked.append(_question("steps", settings, 150))
        for table in some:
            settings = {**table, "jit_compile": True}
            asked.append(_question("steps", settings, 90))
        for jit_compile in ("auto", True) if some else ():
            settings = {**some[-1], "methods": METHODS[:1], "jit_compile": jit_compile}
            asked.append(_question("first steps", settings, 120))
    if peers:
        settings = {**tables[:2][-1], "methods": levels}
        asked.append(_question("steps", settings, 60, "SpikingJelly's memopt"))
        for table in tables[:2]:
            # In the place of Triton's or CUDA's.
            slow = {"SJ_LIF_CUDA_IMPLEMENTATION": "torch"}
            settings = {**table, "methods": peers}
            question = _question("steps", settings, 40, "PyTorch neurons")
            asked.append(dataclasses.replace(question, environment=slow))
    if _is_installed("jax"):
        # The constant that unrolls loops is 8.
        for table in sorted(tables, key=lambda table: table["timesteps"], reverse=True):
            # On a CPU one that compiles soon.
            settings = table if is_gpu else {**table, "network": "VGG11", "size": 32}
            question = _question("steps", settings, 90, "JAX", needs_gpu=is_gpu)
            # Otherwise JAX would claim most of the memory of the GPU.
            environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
            question = dataclasses.replace(question, environment=environment)
            asked.append(dataclasses.replace(question, backend="jax"))
    settings = {**tables[0], "methods": METHODS[:1], "data_format": "channels_first"}
    asked.append(_question("steps", settings, 40, "channels_first"))
    if is_gpu:
        return asked
    small = []
    for question in asked:
        # Threads of networks this small would only wait for each other.
        environment = {**question.environment, "OMP_NUM_THREADS": "1"}
        engine = {"compiler": "aot_eager"} if question.backend == "torch" else {}
        small.append(
            dataclasses.replace(
                question, seconds=180, environment=environment, engine=engine
            )
        )
    return small


def _table_settings(timesteps, precision):
    return {
        "width": 1.0,
        "batch": 128,
        "rounds": 20,
        "timesteps": (timesteps,),
        "precision": precision,
        "methods": METHODS,
    }


def _question(answer, settings, seconds, what="", **options):
    """A question about a network; its name tells the settings."""
    (timesteps,) = settings["timesteps"]
    told = [what, f"T = {timesteps}", settings.get("precision", "float32")]
    if answer == "compilation":
        told += settings["methods"]
    elif settings.get("jit_compile"):
        told.append(f"jit_compile={settings['jit_compile']}")
    return Question(
        f"{answer}: {', '.join(filter(None, told))}",
        answer.replace(" ", "_"),
        seconds,
        {"settings": settings, **options},
        is_timed="steps" in answer,
    )


def _is_installed(package):
    return importlib.util.find_spec(package) is not None


def add_arguments(parser):
    command_line.add_path(parser, "folder", "for the rows and the tables", "OUT")
    parser.add_argument("--ask", metavar="JSON", help="answers this question, in JSON")


def run(arguments):
    """Asks what is not answered yet; returns the exit status."""
    path = arguments.folder / ROWS
    if arguments.ask:
        return answer(path, json.loads(arguments.ask))
    from recipes import device

    with command_line.mistakes():
        device.check_backend("torch", "JAX has processes of its own.")
        arguments.folder.mkdir(parents=True, exist_ok=True)
    is_gpu = device.gpu()
    left = unanswered(questions(is_gpu), rows_of(path))
    deadlines = (UNTIMED_SECONDS, TOTAL_SECONDS) if is_gpu else (math.inf, math.inf)
    with open(arguments.folder / LOG, "a") as log:
        Asking(path, log).ask_all(left, *deadlines)
    text = tables(rows_of(path))
    (arguments.folder / TABLES).write_text(text + "\n")
    print(text)
    return 0


def unanswered(asked, rows):
    """The questions that a run still has to ask: what was measured with, always; and
    what compiles, as long as compiled steps are left."""
    done = {row["question"] for row in rows if row.get("status") == "done"}
    left = [question for question in asked if question.name not in done]
    again = {"about"}
    for question in left:
        if question.answer == "steps" and question.name.endswith("jit_compile=True"):
            again.add("compilation")
    return [
        question for question in asked if question in left or question.answer in again
    ]


def answer(path, question):
    """Answers a question, a dictionary, in this process; returns the exit status. An
    error is recorded."""
    from keras_ratesnn import engine_settings
    from recipes.atomic_files import one_line
    from recipes.benchmark import answers

    def write(row):
        append(path, {"question": question["name"], **row})

    try:
        with engine_settings(**question["engine"]):
            getattr(answers, question["answer"])(write, **question["options"])
    # Any error belongs in the record.
    except Exception as error:
        write({"row": "", "error": f"{type(error).__name__}: {one_line(error)}"[:1000]})
        raise
    return 0


class Asking:
    """Asks questions, each in a process.

    Args:
        path: Path of the file of rows.
        log: Open file, for what the processes print.
        start: Function `(question, path, log)` that starts a process with
            `subprocess.Popen`. Defaults to `None`, the function `process_of`.
    """

    def __init__(self, path, log, start=None):
        self._path, self._log, self._start = path, log, start or process_of
        self._running = []

    def ask_all(self, questions, untimed_seconds, total_seconds):
        """Asks what is not timed, several at once, until the first deadline, and then
        the others in turn until the second."""
        begin = time.time()
        at_once = max(1, (os.cpu_count() or 1) // CORES_OF_A_PROCESS)
        untimed = [question for question in questions if not question.is_timed]
        timed = [question for question in questions if question.is_timed]
        self._ask_some(untimed, at_once, begin + untimed_seconds)
        self._ask_some(timed, 1, begin + total_seconds)

    def _ask_some(self, questions, at_once, end):
        with concurrent.futures.ThreadPoolExecutor(at_once) as threads:
            asked = [threads.submit(self._ask, question, end) for question in questions]
            try:
                for question in asked:
                    question.result()
            finally:
                threads.shutdown(wait=False, cancel_futures=True)
                for process in self._running:
                    _kill(process)

    def _ask(self, question, end):
        begin = time.time()
        deadline = min(question.seconds, end - begin)
        status = "skipped"
        if deadline >= LEAST_SECONDS or deadline == question.seconds:
            print(f"{question.name} ...", file=sys.stderr, flush=True)
            process = self._start(question, self._path, self._log)
            self._running.append(process)
            try:
                status = "failed" if process.wait(deadline) else "done"
            except subprocess.TimeoutExpired:
                _kill(process)
                status = "deadline"
            self._running.remove(process)
        seconds = round(time.time() - begin, 1)
        row = {"question": question.name, "status": status, "seconds": seconds}
        append(self._path, row)


def process_of(question, path, log):
    """Starts the process of a question, in a group of its own, so that compilers that
    it starts end with it."""
    command = [
        sys.executable,
        "-m",
        "recipes.benchmark.gpu",
        str(path.parent),
        "--ask",
        json.dumps(dataclasses.asdict(question)),
    ]
    environment = {**os.environ, **question.environment}
    environment["KERAS_BACKEND"] = question.backend
    return subprocess.Popen(
        command, stdout=log, stderr=log, env=environment, start_new_session=True
    )


def _kill(process):
    # The group may be gone already.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def append(path, row):
    """Appends a row, a dictionary, to a file of JSON objects, to which several
    processes may append. It is on disk when the function returns."""
    with open(path, "ab", buffering=0) as file:
        # A single write: lines of several processes do not mix.
        file.write(f"{json.dumps(row)}\n".encode())
        os.fsync(file.fileno())


def rows_of(path):
    """The rows of a file, a list of dictionaries. A last line that was cut off is left
    out."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        with contextlib.suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return rows


def tables(rows):
    """A Markdown table for each question, of the last time that it was asked."""
    answers: dict = {}
    ends: dict = {}
    for row in rows:
        name = row["question"]
        if "status" in row:
            ends[name] = row, answers.pop(name, [])
        else:
            answers.setdefault(name, []).append(row)
    for name, own in answers.items():
        ends[name] = {"status": "cut off", "seconds": 0.0}, own
    parts = [_table(name, *ended) for name, ended in ends.items()]
    if any(row.get("is_evidence") is False for row in rows):
        parts.insert(0, NOT_EVIDENCE)
    return "\n\n".join(parts)


def _table(name, end, rows):
    """A table with a line for all rows of the same name."""
    lines: dict = {}
    for row in rows:
        lines.setdefault(row["row"], {}).update(row)
    keys = dict.fromkeys(key for line in lines.values() for key in line)
    columns = [key for key in keys if key not in ("question", "row")]
    title = f"## {name}: {end['status']} after {end['seconds']:.0f} s"
    if not lines:
        return title
    cells = []
    for line, values in lines.items():
        cells.append([line, *(_text(values.get(column)) for column in columns)])
    return f"{title}\n\n{markdown.table(('', *columns), cells)}"


def _text(value):
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    if isinstance(value, dict):
        median, lower, upper = (f"{number:.4g}" for number in value.values())
        return f"{median} ({lower} to {upper})"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


main = command_line.command(__name__, "benchmark.gpu", __doc__, add_arguments, run)
