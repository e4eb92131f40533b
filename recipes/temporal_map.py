"""Which tasks need how many windows: `python -m recipes.temporal_map order-4`.

Each task trains the same network by rate with more and more windows, up to one for
each step, which is BPTT; by BPTT, SLTT and OTTT. Each method has the learning rate, of
three, that is best on validation data with the first seed. Numbers in the table are
accuracies on test data; where the target is a number, the share of its variance that is
explained. What was trained is kept in a file of lines for each task, and not trained
again. `--show` prints what there is, and draws the map of all tasks.
"""

import functools
import json
import math
import pathlib
import statistics
import time

import keras
import numpy as np

from keras_ratesnn import SpikingModel, analysis, callbacks, gradients, layers
from recipes import command_line, markdown, plots
from recipes.atomic_files import read_lines
from recipes.benchmark import costs
from recipes.data.temporal_tasks import TASKS

LEARNING_RATES = (2e-3, 5e-3, 1e-2)
WINDOWS = (1, 2, 4, 8)
FIRST_WINDOWS = (2, 4)
MOST_WINDOWS = 8
UNITS, DECAY, BATCH_SIZE, MAX_DELAY = 64, 0.9, 50, 9
THRESHOLDS = {"low-threshold": 0.3}

MORE_SEEDS = 2
"""Where methods are close."""

POINT = 0.01
"""What a method may lose and is as good as BPTT."""

RESULTS = pathlib.Path(__file__).parent / "results" / "temporal_map"


def add_arguments(parser):
    parser.add_argument(
        "tasks", metavar="TASK", nargs="+", choices=TASKS, help="tasks to map"
    )
    command_line.add_seeds(parser, 3)
    command_line.add_path(parser, "--output", "folder of results", default=RESULTS)
    command_line.add_data_dir(parser)
    show = "trains nothing; shows the results, and writes the figure map.png"
    parser.add_argument("--show", action="store_true", help=show)


def draw_map(arguments):
    maps = []
    for name in arguments.tasks:
        task = TASKS[name]
        with command_line.mistakes():
            results = Results(arguments.output / f"{name}.jsonl")
            data = None if arguments.show else task.load(arguments.data_dir)
        if data is not None:
            complete(results, task, data, arguments.seeds)
        print(f"\n{name}: {task.about}.\n")
        for network in task.networks:
            print(table(results, network), flush=True)
            if results.find(network=network, what="cost", method="bptt"):
                maps.append(TaskMap(results, task, network))
    if arguments.show and maps:
        print(summary(maps))
        plots.save(figure(maps), arguments.output / "map.png", dpi=90)


class Results:
    """What was trained for a task: a file whose lines are JSON objects.

    Args:
        path: The file.
    """

    def __init__(self, path):
        self.path = path
        self._records = read_lines(path)

    def find(self, **values):
        """The records with these values, a list."""
        return [record for record in self._records if values.items() <= record.items()]

    def add(self, **record):
        self._records.append(record)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")


def methods(timesteps):
    """The methods by name, each with its gradient. Windows are equal, or differ by a
    step; of `first`, all but the last have one step. One for each step is BPTT, and
    costs too much for long sequences."""
    numbers = [number for number in WINDOWS if number < timesteps]
    if timesteps <= MOST_WINDOWS:
        numbers.append(timesteps)
    by_windows = {}
    for number in numbers:
        groups = np.array_split(np.arange(timesteps), number)
        sizes = tuple(len(group) for group in groups)
        by_windows[f"rate-{number}"] = gradients.Rate(windows=sizes)
    for number in FIRST_WINDOWS:
        if number < timesteps:
            by_windows[f"first-{number}"] = gradients.Rate(windows=number)
    online = {"sltt": gradients.SLTT(), "ottt": gradients.OTTT()}
    return {**by_windows, "bptt": gradients.BPTT(), **online}


def build(task, shape, network, gradient, learning_rate):
    """A compiled network for inputs `(T, channels)` of a task."""
    timesteps, channels = shape
    inputs = x = keras.Input((channels,))
    for _ in range(2):
        if network == "delays":
            x = layers.Delay(MAX_DELAY)(x)
        x = keras.layers.Dense(UNITS)(x)
        neurons = layers.LIF(DECAY, THRESHOLDS.get(network, 1.0))
        if network == "recurrent":
            synapses = keras.layers.Dense(UNITS, use_bias=False)
            neurons = layers.Recurrent(neurons, synapses)
        x = neurons(x)
    outputs = keras.layers.Dense(task.outputs)(x)
    model = SpikingModel(
        keras.Model(inputs, outputs),
        timesteps,
        gradient,
        mask_value=task.padding,
    )
    if task.outputs == 1:
        model.compile(keras.optimizers.Adam(learning_rate), "mse")
    else:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(learning_rate), loss, metrics=["accuracy"])
    return model


def complete(results, task, data, seeds):
    """Trains what is missing."""
    shape = data["train"][0].shape[1:]
    if not results.find(what="probe") and task.outputs > 1:
        results.add(what="probe", **probed(task, data, shape))
    by_name = methods(shape[0])
    for network in task.networks:
        compare(results, task, data, network, by_name, seeds)
        close = {name: by_name[name] for name in undecided(results, network, seeds)}
        compare(results, task, data, network, close, seeds + MORE_SEEDS)


def compare(results, task, data, network, by_name, seeds):
    """Trains a network by each method with so many seeds, where that is not done."""
    shape = data["train"][0].shape[1:]
    for name, gradient in by_name.items():
        make = functools.partial(build, task, shape, network, gradient)
        key = {"network": network, "method": name}
        if not results.find(**key):
            try:
                make(LEARNING_RATES[0])
            except ValueError as error:
                results.add(**key, refused=str(error))
        if is_refused(results, key):
            continue
        for seed in range(seeds):
            rates = LEARNING_RATES
            if seed:
                rates = [best_runs(results, key)[0]["learning_rate"]]
            for learning_rate in rates:
                run = {**key, "learning_rate": learning_rate, "seed": seed}
                if results.find(**run):
                    continue
                trains = f"{network}, {name}, learning rate {learning_rate}"
                print(f"{trains}, seed {seed + 1} of {seeds}", flush=True)
                keras.utils.set_random_seed(seed)
                results.add(**run, **trained(make(learning_rate), task, data))
        if not results.find(**key, what="cost"):
            results.add(**key, what="cost", **cost(make(LEARNING_RATES[0]), data))


def is_refused(results, key):
    """Whether a method does not train this network."""
    return any("refused" in record for record in results.find(**key))


def undecided(results, network, seeds):
    """The methods that are not told from BPTT, and BPTT: their means differ by less
    than two standard deviations. Equal scores of all seeds decide."""
    if seeds == 1:
        return []
    by_method = scores_of(results, network)
    exact = by_method["bptt"]
    names = []
    for name, scores in by_method.items():
        spread = math.hypot(np.std(scores, ddof=1), np.std(exact, ddof=1))
        difference = abs(np.mean(scores) - np.mean(exact))
        if name != "bptt" and difference < 2 * spread:
            names.append(name)
    return [*names, "bptt"] if names else []


def trained(model, task, data):
    """The scores of a model after training, and how long it took."""
    began = time.process_time()
    narrowed = []
    if any(isinstance(layer, layers.Delay) for layer in model.network.layers):
        narrowed = [callbacks.LowerSigma(max(1, task.epochs // 2))]
    x, y = data["train"]
    model.fit(x, y, BATCH_SIZE, task.epochs, verbose=0, callbacks=narrowed)
    seconds = time.process_time() - began
    scores = {part: score(model, *data[part]) for part in ("validation", "test")}
    versions = f"{keras.backend.backend()}, Keras {keras.__version__}"
    return {**scores, "seconds": round(seconds, 2), "versions": versions}


def score(model, x, y):
    """The accuracy, or the share of the variance of numbers that is explained."""
    outputs = model.predict(x, batch_size=500, verbose=0)
    if outputs.shape[-1] > 1:
        return float(np.mean(outputs.argmax(-1) == y))
    return 1.0 - float(np.mean(np.square(outputs[:, 0] - y)) / np.var(y))


def cost(model, data):
    """The FLOPs and the memory of a step."""
    x, y = (array[:BATCH_SIZE] for array in data["train"])

    def step():
        model.train_on_batch(x, y)

    # Graphs are recorded in the first steps.
    for _ in range(4):
        step()
    memory = costs.memory_rise(step)
    return {"flops": costs.counted_flops(step), "memory_bytes": memory}


def probed(task, data, shape):
    """What `analysis.temporal_probe` recommends for the first network, and its time."""
    began = time.process_time()
    network, gradient = task.networks[0], gradients.BPTT()
    x, y = data["train"]
    result = analysis.temporal_probe(
        functools.partial(build, task, shape, network, gradient, LEARNING_RATES[1]),
        x,
        y,
        data["validation"],
        epochs=task.epochs,
        batch_size=BATCH_SIZE,
        seeds=3,
        verbose=0,
    )
    recommended = result.recommended and result.recommended.name
    seconds = round(time.process_time() - began, 2)
    return {"recommended": recommended, "seconds": seconds}


def best_runs(results, key):
    """The runs of a method with the learning rate that was best on validation data with
    the first seed, one for each seed."""
    first = results.find(**key, seed=0)
    best = max(first, key=lambda run: run["validation"])
    return results.find(**key, learning_rate=best["learning_rate"])


def scores_of(results, network):
    """The scores on test data by method, for the methods that are trained."""
    scores = {}
    for record in results.find(network=network, what="cost"):
        key = {"network": network, "method": record["method"]}
        scores[record["method"]] = [run["test"] for run in best_runs(results, key)]
    return scores


class TaskMap:
    """What a network has learnt of a task.

    Args:
        results: `Results`.
        task: `Task`.
        network: String.

    Attributes:
        scores: Dict of methods' lists of scores on test data.
        title: String, the task and the network.
    """

    def __init__(self, results, task, network):
        self.title = f"{task.name}, {network}"
        self.task = task
        self.scores = scores_of(results, network)
        self.means = {name: statistics.mean(run) for name, run in self.scores.items()}
        is_probed = network == task.networks[0]
        self.probes = results.find(what="probe") if is_probed else []

    def is_learnt(self):
        """Whether BPTT learns the task: it is better than chance, or than the mean."""
        chance = 1 / self.task.outputs if self.task.outputs > 1 else 0.0
        return self.means["bptt"] > chance + 0.05

    def smallest(self, kind):
        """The smallest number of windows of a kind that is within a point of BPTT, or
        `None`; one window is of both kinds."""
        for name, mean in self.means.items():
            words = name.split("-")
            is_kind = words[0] == kind or name == "rate-1"
            if is_kind and mean > self.means["bptt"] - POINT:
                return int(words[1])
        return None


def table(results, network):
    """The results of a network as a Markdown table."""
    rows = []
    names = dict.fromkeys(run["method"] for run in results.find(network=network))
    for name in names:
        key = {"network": network, "method": name}
        if is_refused(results, key):
            rows.append((name, "refused", "", "", "", ""))
            continue
        runs = best_runs(results, key)
        scores = markdown.mean_of([run["test"] for run in runs])
        seconds = statistics.median(run["seconds"] for run in runs)
        flops, memory = "", ""
        for costs_of_step in results.find(**key, what="cost"):
            flops = f"{costs_of_step['flops'] / 1e6:.0f}"
            memory = f"{costs_of_step['memory_bytes'] / 2**20:.2f}"
        rate = runs[0]["learning_rate"]
        rows.append((name, scores, rate, f"{seconds:.1f}", flops, memory))
    columns = (network, "test", "learning rate", "seconds", "MFLOP", "MiB")
    return markdown.table(columns, rows) + "\n"


def summary(maps):
    """What follows for each task, as a Markdown table: the smallest number of windows
    that is within a point of BPTT, equal ones or of first steps, and what the probe
    recommends."""
    rows = []
    for row in maps:
        cells = [row.title, markdown.mean_of(row.scores["bptt"])]
        cells.append(f"{row.means['rate-1']:.4f}")
        if row.is_learnt():
            cells += [row.smallest("rate") or "T", row.smallest("first") or "T"]
        else:
            cells += ["not learnt", "not learnt"]
        probes = [f"{one['recommended']}, {one['seconds']:.0f} s" for one in row.probes]
        rows.append([*cells, "".join(probes)])
    columns = ("task", "BPTT", "W = 1", "smallest W", "of first steps", "probe")
    return markdown.table(columns, rows)


COLUMNS = {
    "rate-1": "W = 1",
    "rate-2": "W = 2",
    "rate-4": "W = 4",
    "rate-8": "W = 8",
    "bptt": "BPTT",
    "sltt": "SLTT",
    "ottt": "OTTT",
}


def figure(maps):
    """A row for each task and a column for each method: scores on test data, coloured
    by the points that are missing to BPTT."""
    drawn = plots.new_figure(7.2, 0.9 + 0.3 * len(maps))
    axes = drawn.subplots()
    missing = np.full((len(maps), len(COLUMNS)), np.nan)
    for row, task_map in enumerate(maps):
        means = task_map.means
        for column, name in enumerate(COLUMNS):
            text = "–"
            if name in means:
                missing[row, column] = means["bptt"] - means[name]
                text = f"{means[name]:.2f}"
            axes.text(column, row, text, ha="center", va="center", fontsize="small")
    axes.imshow(missing, cmap="OrRd", vmin=0.0, vmax=0.5, aspect="auto", alpha=0.8)
    axes.set_xticks(range(len(COLUMNS)), COLUMNS.values())
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(maps)), [task_map.title for task_map in maps])
    axes.tick_params(length=0, labelsize="small")
    return drawn


main = command_line.command(
    __name__,
    "temporal_map",
    __doc__,
    add_arguments,
    draw_map,
    "; repeat the command to resume",
)
