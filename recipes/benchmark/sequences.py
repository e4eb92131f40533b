"""What masks, recurrence, delays and parallel neurons cost: `KERAS_BACKEND=torch python
-m recipes.benchmark.sequences`.

Prints the time and the memory of a training step on sequences: dense layers of
`--units`, each with neurons after it. On PyTorch SpikingJelly and snnTorch train the
same networks by BPTT, where they have the layers, each in a process of its own. All
cases of a T are timed in turn; a ratio is the median of those of the rounds. On a CPU
the time is that of its processors, which other processes affect little.
"""

import contextlib
import dataclasses
import functools
import gc
import itertools
import time
from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from keras_ratesnn import SpikingModel, layers
from recipes import command_line, device, markdown, methods
from recipes.benchmark import cases, costs, measure, own_process, timing
from recipes.benchmark.arguments import add_settings, settings_of
from recipes.benchmark.settings import ORDER, PEERS
from recipes.checks import mistake

CLASSES = 20
MAX_DELAY = 25
PADDING = -1.0


@dataclasses.dataclass(frozen=True)
class Case:
    """A network, and what the peers that cannot run it lack.

    Args:
        neurons: Function of the number of units that returns a new neuron layer.
        delays: Boolean, whether a `Delay` is before each dense layer. Defaults to
            `False`.
        masks: Boolean, whether sequences are padded, from between T/2 and T steps.
            Defaults to `False`.
        lacking: String. Defaults to nothing.
    """

    neurons: Callable
    delays: bool = False
    masks: bool = False
    lacking: str = ""


CASES = {
    "LIF": Case(lambda units: layers.LIF()),
    "LIF, masked": Case(lambda units: layers.LIF(), masks=True, lacking="no masks"),
    "Recurrent": Case(
        lambda units: layers.Recurrent(
            layers.LIF(), keras.layers.Dense(units, use_bias=False)
        )
    ),
    "Delay": Case(lambda units: layers.LIF(), delays=True, lacking="no learned delays"),
    "SlidingPSN": Case(
        lambda units: layers.SlidingPSN(ORDER), lacking="no parallel neurons"
    ),
}


METHODS = (*methods.PLAIN, *(name for name, peer in PEERS.items() if not peer.memopt))
"""Those that train these networks; numbers may follow, see `recipes.methods`."""


def add_arguments(parser):
    names = ", ".join(map(repr, CASES))
    parser.add_argument(
        "--cases",
        nargs="+",
        default=list(CASES),
        choices=CASES,
        metavar="CASE",
        help=f"of {names}",
    )
    command_line.add_count(
        parser, "--units", "size of the input and of all layers", 140
    )
    command_line.add_count(parser, "--layers", "number of layers of neurons", 2)
    defaults = {"batch": 64, "timesteps": [25], "methods": ["bptt-multi", "rate-multi"]}
    add_settings(
        parser, "batch", "timesteps", "rounds", "methods", "threads", **defaults
    )


def run(arguments):
    given = vars(arguments)
    chosen, units, depth = (given.pop(name) for name in ("cases", "units", "layers"))
    settings = settings_of(arguments)
    with command_line.mistakes():
        for method in settings.methods:
            _check_method(method)
    print(
        f"{keras.backend.backend()} on {device.name()}: {depth} layers of {units}, "
        f"batch {settings.batch}\n"
    )
    print(
        markdown.heading(
            (
                "network",
                "T",
                "method",
                "ms",
                f"ratio to {settings.methods[0]}",
                "ratio to LIF",
                "MiB",
            )
        )
    )
    for timesteps in settings.timesteps:
        clock, memory, steps = (
            time.perf_counter if device.gpu() else time.process_time,
            {},
            {},
        )
        with contextlib.ExitStack() as processes:
            for method in settings.methods:
                arguments = settings, chosen, method, timesteps, units, depth
                of_method, own = own_process.made(processes, method, warm, *arguments)
                memory |= {
                    (name, method): of_case for name, of_case in of_method.items()
                }
                steps |= {(name, method): step for name, step in own.items()}
            # In turn are the methods of a network.
            steps = {
                key: steps[key]
                for key in itertools.product(chosen, settings.methods)
                if key in steps
            }
            seconds = timing.interleaved(
                steps, settings.rounds, clock, timing.LEAST_SECONDS
            )
        for name, method in itertools.product(chosen, settings.methods):
            cells = _cells(
                seconds, name, method, settings.methods[0], memory[name, method]
            )
            print(markdown.row((name, timesteps, method, *cells)), flush=True)
        # Models contain reference cycles; the next T needs their memory.
        del steps, own
        gc.collect()


def _check_method(method):
    if method in {*methods.PRESETS, *PEERS}.difference(METHODS):
        raise mistake(
            "methods",
            f"of {', '.join(METHODS)}",
            method,
            "It needs a network of recipes.benchmark.",
        )


def _cells(seconds, name, method, first, memory_bytes):
    """Time, its ratios to those of the first method and of LIF neurons, and memory."""
    if (name, method) not in seconds:
        return CASES[name].lacking, "", "", ""
    own = seconds[name, method]
    bases = (seconds.get((name, first)), seconds.get(("LIF", method)))
    ratios = (
        ""
        if base is None
        else f"{timing.spread(timing.ratios(own, base))['median']:.2f}"
        for base in bases
    )
    memory = "" if memory_bytes is None else f"{memory_bytes / 2**20:.1f}"
    return f"{1000 * timing.spread(own)['median']:.1f}", *ratios, memory


def warm(settings, chosen, method, timesteps, units, depth):
    """The memory of training steps in bytes, or `None` if not measured, and the steps,
    warmed up; both are dictionaries.

    A peer has no steps of the cases for which it lacks a layer.

    Args:
        settings: `Settings`.
        chosen: Sequence of names of `CASES`.
        method: A name of `recipes.methods` or `PEERS`.
        timesteps: Integer T.
        units: Integer, the size of the input and of all layers.
        depth: Integer, the number of layers of neurons.
    """
    cases.configure(settings)
    found = {
        name: _warm(settings, name, method, timesteps, units, depth) for name in chosen
    }
    steps = {name: case.step for name, case in found.items() if case is not None}
    return {name: case and case.memory_bytes for name, case in found.items()}, steps


def _warm(settings, name, method, timesteps, units, depth):
    """A training step of a case as `measure.Warm`, or `None`."""
    if method in PEERS:
        # Imported here because it imports PyTorch.
        from recipes.benchmark import peers

        trainer = peers.sequence_trainer(method, name, units, depth, CLASSES)
    else:
        trainer = _model(name, method, timesteps, units, depth)
    if trainer is None:
        return None
    batch = sequences(CASES[name].masks, settings.batch, timesteps, units)
    case = measure.warm_up(
        functools.partial(trainer.train_on_batch, *batch),
        measure.compiling_calls(settings, method),
    )
    if keras.backend.backend() == "jax":
        return dataclasses.replace(
            case, memory_bytes=costs.compiled(trainer, *batch)["memory_bytes"]
        )
    return (
        case
        if costs.needs_separate_process()
        else dataclasses.replace(case, memory_bytes=costs.memory_rise(case.step))
    )


def sequences(masks, batch, timesteps, units):
    """Sequences `(batch, T, units)` of which a tenth is 1, padded if `masks`, and their
    labels, in device memory."""
    generator = np.random.default_rng(0)
    values = (generator.random((batch, timesteps, units)) < 0.1).astype("float32")
    if masks:
        lengths = generator.integers(
            -(-timesteps // 2), timesteps, batch, endpoint=True
        )
        values[np.arange(timesteps) >= lengths[:, None]] = PADDING
    return ops.convert_to_tensor(values), ops.convert_to_tensor(
        np.arange(batch, dtype="int64") % CLASSES
    )


def _model(name, method, timesteps, units, depth):
    case, chosen = CASES[name], methods.settings_of(method)
    inputs = x = keras.Input((units,))
    for _ in range(depth):
        x = layers.Delay(MAX_DELAY)(x) if case.delays else x
        x = case.neurons(units)(keras.layers.Dense(units)(x))
    network = keras.Model(inputs, keras.layers.Dense(CLASSES)(x))
    gradient, mask_value = (
        methods.gradient_method(chosen),
        PADDING if case.masks else None,
    )
    model = SpikingModel(
        network, timesteps, gradient, chosen["step_mode"], mask_value=mask_value
    )
    model.compile("sgd", cases.loss())
    model.optimizer.build(model.trainable_variables)
    return model


main = command_line.command(
    __name__, "benchmark.sequences", __doc__, add_arguments, run
)
