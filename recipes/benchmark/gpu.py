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
RESNET = {"width": 1.0, "batch": 128, "size": 32, "rounds": 20, "methods": METHODS}
SMALL_RESNET = {"width": 0.25, "batch": 16, "timesteps": (4,), "methods": METHODS}
TINY_RESNET = {
    "width": 0.125,
    "batch": 2,
    "size": 8,
    "rounds": 2,
    "timesteps": (2,),
    "methods": ("rate-multi",),
}


@dataclasses.dataclass(frozen=True)
class Question:
    """A part of the run, which has a process of its own.

    Attributes:
        name: String, unique.
        answer: Name of a function of `answers.py`, which takes a function that writes a
            row, and the options.
        seconds: Number, the deadline.
        options: Dictionary of what JSON can represent.
        is_timed: Boolean, whether it needs a quiet machine.
        backend: Name of the Keras backend.
        environment: Dictionary of further environment variables.
    """

    name: str
    answer: str
    seconds: float
    options: dict = dataclasses.field(default_factory=dict)
    is_timed: bool = False
    backend: str = "torch"
    environment: dict = dataclasses.field(default_factory=dict)


def on_gpu():
    """The questions about a GPU, the most important first."""
    tables = {
        f"T = {timesteps}, {precision}": {
            **RESNET,
            "timesteps": (timesteps,),
            "precision": precision,
        }
        for precision in ("float32", "mixed_bfloat16")
        for timesteps in (4, 8)
    }
    float32, half = list(tables.items())[:2], list(tables.items())[2:]
    longest = tables["T = 8, float32"]
    compilations = [
        _compilation(name, settings, method)
        for method in METHODS
        for name, settings in tables.items()
    ]
    questions = [
        Question("about", "about", 60, {"is_evidence": True}),
        Question("reference", "reference", 150),
        _agreement("float32", SMALL_RESNET, ["auto"], 80),
        # On few cores there is no time for more than the first of them.
        *compilations[:2],
        _agreement("float64", SMALL_RESNET, ["auto"], 80),
        *compilations[2:],
        _agreement("float32", SMALL_RESNET, [True], 170),
        _agreement("float64", SMALL_RESNET, [True], 170),
    ]
    for some in (float32, half):
        questions += [_steps(name, _with_peer(table), 150) for name, table in some]
        questions += [
            _steps(f"compiled, {name}", {**table, "jit_compile": True}, 90)
            for name, table in some
        ]
        if some is float32:
            # In a process each: what one has compiled the other must not find.
            questions += [
                _first_steps(longest, jit_compile) for jit_compile in ("auto", True)
            ]
    if _is_installed(PEER):
        levels = tuple(name for name, peer in PEERS.items() if peer.memopt)
        optimized = {**longest, "methods": levels}
        questions.append(_steps("SpikingJelly's memopt", optimized, 60))
        # In the place of Triton's or CUDA's.
        slow = {"SJ_LIF_CUDA_IMPLEMENTATION": "torch"}
        questions += [
            _steps(
                f"SpikingJelly's PyTorch neurons, {name}",
                {**table, "methods": (PEER,)},
                40,
                environment=slow,
            )
            for name, table in float32
        ]
    # The constant that unrolls loops is 8.
    for name, table in (*reversed(float32), *reversed(half)):
        questions += _jax_steps(name, table, 90, needs_gpu=True)
    first = {**tables["T = 4, float32"], "methods": METHODS[:1]}
    first["data_format"] = "channels_first"
    return [*questions, _steps("channels_first", first, 40)]


def on_cpu():
    """The same kinds of questions in small, to see that they are answered."""
    # Compilation would take minutes: graphs are prepared for it, and interpreted.
    compiler = "aot_eager"
    vgg = {**TINY_RESNET, "network": "VGG11", "size": 32}
    cases = ["mlp_rate_m", "mlp_bptt_m", "res_rate_m", "vgg_rate_s"]
    peers = _with_peer(TINY_RESNET)
    compiled = {**TINY_RESNET, "jit_compile": True}
    questions = [
        Question("about", "about", 180, {"is_evidence": False}),
        _agreement("float64", TINY_RESNET, ["auto", True], 180, compiler=compiler),
        Question("reference", "reference", 180, {"names": cases}),
        _steps("T = 2, float32", peers, 180),
        _steps("compiled, T = 2, float32", compiled, 180, compiler=compiler),
        *_jax_steps("T = 2, float32", vgg, 180, needs_gpu=False),
    ]
    # Threads of networks this small would only wait for each other.
    one_thread = {"OMP_NUM_THREADS": "1"}
    return [
        dataclasses.replace(
            question, environment={**question.environment, **one_thread}
        )
        for question in questions
    ]


def _agreement(precision, settings, modes, seconds, compiler=None):
    options = {"settings": {**settings, "precision": precision}, "modes": modes}
    names = " and ".join({"auto": "recorded", True: "compiled"}[mode] for mode in modes)
    return Question(
        f"agreement of {names} graphs, {precision}",
        "agreement",
        seconds,
        {**options, "compiler": compiler},
    )


def _compilation(name, settings, method):
    options = {**settings, "methods": (method,), "jit_compile": True}
    return Question(
        f"compilation, {method}, {name}",
        "compilation",
        UNTIMED_SECONDS,
        {"settings": options},
    )


def _steps(name, settings, seconds, environment=None, **options):
    return Question(
        f"steps, {name}",
        "steps",
        seconds,
        {"settings": settings, **options},
        is_timed=True,
        environment=environment or {},
    )


def _with_peer(settings):
    first, *rest = settings["methods"]
    peers = [PEER] if _is_installed(PEER) else []
    return {**settings, "methods": (first, *peers, *rest)}


def _first_steps(settings, jit_compile):
    options = {**settings, "methods": METHODS[:1], "jit_compile": jit_compile}
    return Question(
        f"first steps with empty caches, jit_compile={jit_compile}",
        "first_steps",
        120,
        {"settings": options},
        is_timed=True,
    )


def _jax_steps(name, settings, seconds, needs_gpu):
    if not _is_installed("jax"):
        return []
    question = _steps(f"JAX, {name}", settings, seconds, needs_gpu=needs_gpu)
    # Otherwise JAX would claim most of the memory of the GPU.
    environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    return [dataclasses.replace(question, backend="jax", environment=environment)]


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
    questions = on_gpu() if device.gpu() else on_cpu()
    with open(arguments.folder / LOG, "a") as log:
        Asking(path, log).ask_all(unanswered(questions, rows_of(path)))
    text = tables(rows_of(path))
    (arguments.folder / TABLES).write_text(text + "\n")
    print(text)
    return 0


def unanswered(questions, rows):
    """The questions that a run still has to ask: what was measured with, always; and
    what compiles, as long as compiled steps are left."""
    done = {row["question"] for row in rows if row.get("status") == "done"}
    left = [question for question in questions if question.name not in done]
    compiles = any(question.name.startswith("steps, compiled") for question in left)
    return [
        question
        for question in questions
        if question in left
        or question.answer == "about"
        or (question.answer == "compilation" and compiles)
    ]


def answer(path, question):
    """Answers a question, a dictionary, in this process; returns the exit status. An
    error is recorded."""
    from recipes.atomic_files import one_line
    from recipes.benchmark import answers

    def write(row):
        append(path, {"question": question["name"], **row})

    try:
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

    def ask_all(self, questions):
        """Asks what is not timed, several at once, and then the others in turn."""
        begin = time.time()
        at_once = max(1, (os.cpu_count() or 1) // CORES_OF_A_PROCESS)
        untimed = [question for question in questions if not question.is_timed]
        timed = [question for question in questions if question.is_timed]
        self._ask_some(untimed, at_once, begin + UNTIMED_SECONDS)
        self._ask_some(timed, 1, begin + TOTAL_SECONDS)

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
