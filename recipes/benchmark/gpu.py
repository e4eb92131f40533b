"""All questions about a GPU, in nine minutes: `python -m recipes.benchmark.gpu OUT`.

A question is a command with a deadline, and its answer what that prints. What is not
timed comes first, several at once, for 230 s at most: the reference cases, which
without TF32 must agree in eager mode and by recorded and compiled graphs; and the
compilation of what is timed later. Then the others run one after the other, the most
important first: training steps of a ResNet-18 (width 1, batch 128, 32x32, T = 4 and 8;
float32 as TF32, and `mixed_bfloat16`) by the library's methods, recorded and compiled,
an ordinary step, the floor, and SpikingJelly with its fastest neurons, with its PyTorch
neurons, and with levels 1 to 4 of its memory optimisation; the first training steps
with empty caches; and on JAX unrolled and compiled time loops.

Beside the tables of `recipes.benchmark` there are, of each step on PyTorch, the time in
which the GPU is busy, kernels, copies, launches, waits for the GPU, and fetches
(`.item()`). The floor is Keras in eager mode, where a GPU often waits for the host, so
a ratio of times alone would flatter the library: only that of busy times says how much
work a method adds.

At the end stands what JAX's compiler predicts (`recipes.benchmark.compiled_tables`).

An answer is in OUT as soon as its command has ended, and the same command asks again
what is not answered. On a CPU the questions are small, to show that they are answered.
"""

import concurrent.futures
import dataclasses
import importlib.util
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from recipes import command_line
from recipes.benchmark import compiled
from recipes.benchmark.settings import PEERS
from recipes.benchmark.step import JIT_COMPILE

EVIDENCE = "evidence.md"
"""The file of all answers."""

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

CPU_SECONDS = 900
"""The deadline of a question on a CPU, where the whole run has none."""

LEAST_SECONDS = 15
"""With less time left no question is asked: it would end before its answer."""

CORES_OF_A_PROCESS = 2
"""The cores for each of the processes that run at once; compilers use more than one."""

LARGE = "--width 1 --batch 128"
TINY = "--width 0.125 --batch 2 --size 8 --rounds 2"
"""The options of networks on a GPU and on a CPU."""

METHODS = ("rate-multi", "rate-single", "bptt-multi")
PEER = "spikingjelly"

COMPILED = "--jit-compile false true"
"""The floor runs with the first of these."""

FEW_CASES = "mlp_rate_m res_bptt_m res_rate_m vgg_rate_s"
"""The reference cases that are compiled, which takes long."""

TESTS = pathlib.Path(__file__).parents[2] / "tests"

TF32 = {"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"}
WITHOUT_TF32 = {"NVIDIA_TF32_OVERRIDE": "0"}


@dataclasses.dataclass(frozen=True)
class Question:
    """A command of the run.

    Attributes:
        name: String, unique.
        command: String, a module and its arguments.
        seconds: Number, the deadline.
        is_timed: Boolean, whether it needs a quiet machine.
        environment: Dictionary of further environment variables.
        has_caches: Boolean, whether compilers have their caches, not empty ones.
    """

    name: str
    command: str
    seconds: float
    is_timed: bool = True
    environment: dict = dataclasses.field(default_factory=lambda: TF32)
    has_caches: bool = True


def questions(is_gpu):
    """The questions, the most important first, a list. On a CPU they are small."""
    steps = _step_options(is_gpu)
    asked = [*_untimed(is_gpu, steps), *_timed(steps)]
    if importlib.util.find_spec(PEER):
        asked += _peers(is_gpu, steps)
    if importlib.util.find_spec("jax"):
        # Otherwise JAX would claim most of the memory of the GPU.
        jax = {"KERAS_BACKEND": "jax", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        for name, options in steps.items():
            command = f"{options} --loops"
            asked.append(Question(f"JAX, {name}", command, 150, environment=jax))
    if is_gpu:
        return asked
    return [dataclasses.replace(question, seconds=CPU_SECONDS) for question in asked]


def _step_options(is_gpu):
    """The commands of the training steps, by name."""
    if not is_gpu:
        return {"T = 2": f"recipes.benchmark {TINY} --timesteps 2"}
    return {
        f"T = {timesteps}, {precision}": f"recipes.benchmark {LARGE} --timesteps "
        f"{timesteps} --precision {precision}"
        for precision in ("float32", "mixed_bfloat16")
        for timesteps in (4, 8)
    }


def _untimed(is_gpu, steps):
    """Versions, the reference cases, and what is compiled for the timed steps."""
    yield Question("about", "torch.utils.collect_env", 60, is_timed=False)
    for jit_compile in JIT_COMPILE:
        command = f"recipes.benchmark.gpu . --reference {jit_compile}"
        if jit_compile == "true" or not is_gpu:
            command += f" --cases {FEW_CASES}"
        name = f"reference, jit_compile={jit_compile}"
        yield Question(name, command, UNTIMED_SECONDS, False, WITHOUT_TF32)
    for name, options in steps.items():
        for method in METHODS:
            command = f"{options} --rounds 1 {COMPILED} --methods {method}"
            title = f"compilation, {name}, {method}"
            yield Question(title, command, UNTIMED_SECONDS, False)


def _timed(steps):
    """The steps of the library's methods beside SpikingJelly's, if it is there, and the
    first steps with empty caches."""
    first, *rest = METHODS
    peers = [PEER] if importlib.util.find_spec(PEER) else []
    methods = " ".join([first, *peers, *rest])
    for name, options in steps.items():
        yield Question(name, f"{options} --methods {methods}", 150)
        yield Question(f"{name}, compiled", f"{options} {COMPILED}", 120)
    for name, options in steps.items():
        for jit_compile in ("auto", "true"):
            command = f"{options} --jit-compile {jit_compile} --methods {first}"
            title = f"first steps, {name}, jit_compile={jit_compile}"
            yield Question(title, command, 120, has_caches=False)


def _peers(is_gpu, steps):
    """SpikingJelly with its memory optimisation, and with its PyTorch neurons."""
    levels = [name for name, peer in PEERS.items() if peer.memopt]
    methods = " ".join(levels if is_gpu else levels[:1])
    # In the place of Triton's or CUDA's.
    slow = {**TF32, "SJ_LIF_CUDA_IMPLEMENTATION": "torch"}
    for name, options in steps.items():
        yield Question(f"memopt, {name}", f"{options} --methods {methods}", 60)
        title, command = f"PyTorch neurons, {name}", f"{options} --methods {PEER}"
        yield Question(title, command, 40, environment=slow)


def add_arguments(parser):
    command_line.add_path(parser, "folder", "folder of the answers", "OUT")
    reference = "only checks the reference cases, in this process, compiled so"
    parser.add_argument("--reference", choices=JIT_COMPILE, help=reference)
    cases = "some of the reference cases (default: all)"
    parser.add_argument("--cases", nargs="+", metavar="NAME", help=cases)


def run(arguments):
    """Asks what is not answered yet."""
    if arguments.reference:
        return check_reference(JIT_COMPILE[arguments.reference], arguments.cases)
    from recipes import device

    folder = arguments.folder
    with command_line.mistakes():
        device.check_backend("torch", "JAX has processes of its own.")
        folder.mkdir(parents=True, exist_ok=True)
    is_gpu = device.gpu()
    asked = questions(is_gpu)
    deadlines = (UNTIMED_SECONDS, TOTAL_SECONDS) if is_gpu else (math.inf, math.inf)
    ask_all(asked, folder, *deadlines)
    answers = [answer(question, folder) for question in asked]
    text = "\n\n".join([*answers, predicted()])
    if not is_gpu:
        text = f"{NOT_EVIDENCE}\n\n{text}"
    (folder / EVIDENCE).write_text(text + "\n")
    print(text)
    return 0


def check_reference(jit_compile, names=None):
    """Prints whether the reference cases of the repository agree; returns the exit
    status, 1 if one does not."""
    from recipes.atomic_files import one_line
    from recipes.benchmark import measure

    sys.path.insert(0, str(TESTS))
    import reference_networks

    status = 0
    for name in names or reference_networks.CASES:
        result = "agrees"
        # A case that fails does not end the others.
        try:
            with measure.recorded_at_once():
                case = reference_networks.Case(name)
                case.assert_training_agrees(jit_compile)
        except Exception as error:
            status, result = 1, f"{type(error).__name__}: {one_line(error)}"
        print(f"* {name}: {result}", flush=True)
    return status


def ask_all(asked, folder, untimed_seconds, total_seconds):
    """Asks what is not answered: what is not timed, several at once, until the first
    deadline, and then the others in turn until the second."""
    begin = time.time()
    left = [question for question in asked if not path_of(question, folder).exists()]
    untimed = [question for question in left if not question.is_timed]
    at_once = max(1, (os.cpu_count() or 1) // CORES_OF_A_PROCESS)
    with concurrent.futures.ThreadPoolExecutor(at_once) as threads:
        for question in untimed:
            threads.submit(ask, question, folder, begin + untimed_seconds)
    for question in left:
        if question.is_timed:
            ask(question, folder, begin + total_seconds)


def ask(question, folder, end):
    """Runs the command of a question, until a time at most; what it prints has the name
    of an answer once it has ended well."""
    from recipes.benchmark import measure

    deadline = min(question.seconds, end - time.time())
    if deadline < min(LEAST_SECONDS, question.seconds):
        return
    print(f"{question.name} ...", file=sys.stderr, flush=True)
    path = path_of(question, folder)
    part, log = path.with_suffix(".part"), path.with_suffix(".log")
    command = [sys.executable, "-m", *question.command.split()]
    if question.command.startswith("recipes.benchmark "):
        command += ["--output", str(path.with_suffix(""))]
    with (
        tempfile.TemporaryDirectory() as empty,
        open(part, "w") as printed,
        open(log, "w") as errors,
    ):
        environment = {**os.environ, **question.environment}
        if not question.has_caches:
            environment |= measure.caches_in(empty)
        try:
            subprocess.run(
                command,
                stdout=printed,
                stderr=errors,
                env=environment,
                timeout=deadline,
                check=True,
            )
        except subprocess.SubprocessError as error:
            print(f"{question.name}: {error}", file=errors)
            return
    part.rename(path)


def path_of(question, folder):
    """The file of the answer to a question."""
    return folder / f"{question.name}.md"


def answer(question, folder):
    """The answer to a question, or how far it came, as Markdown."""
    path = path_of(question, folder)
    part = path.with_suffix(".part")
    if path.exists():
        return f"## {question.name}\n\n{path.read_text().strip()}"
    if part.exists():
        return f"## {question.name}: failed, or cut off\n\n{part.read_text().strip()}"
    return f"## {question.name}: not asked yet"


def predicted():
    """The findings of JAX's compiler for an H100, to be read beside measurements."""
    from recipes.atomic_files import read_lines
    from recipes.benchmark import compiled_tables

    records = read_lines(compiled_tables.RESULTS)
    found = {record["command"]: record for record in records}
    return f"## Predicted\n\n{compiled.NOT_RUN}\n\n{compiled_tables.report(found)}"


main = command_line.command(__name__, "benchmark.gpu", __doc__, add_arguments, run)
