"""Which neurons and how many windows tasks need: `python -m recipes.temporal_map
order-4`.

Each task trains networks that differ in their neurons, by rate with one, two and four
windows, by BPTT, SLTT and OTTT. The learning rate and the scale of the kernels are
chosen for each task and network on validation data with the first seed: by BPTT, and
again for one window. Other methods have the better of these two. Numbers in the table
are accuracies on test data; where the target is a number, the share of its variance
that is explained. What was trained is kept in a file of lines for each task, and not
trained again. `--show` prints what there is, and draws the map of all tasks.
"""

import functools
import itertools
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
from recipes.data.temporal_tasks import NETWORKS, TASKS

LEARNING_RATES = (2e-3, 5e-3, 1e-2)
_scaling = keras.initializers.VarianceScaling
KERNELS = {
    "ordinary": keras.initializers.GlorotUniform,
    "wide": functools.partial(_scaling, 6.0, "fan_in", "uniform"),
}
"""Functions that make initializers, each of which draws once."""

WINDOWS = (1, 2, 4)
UNITS, DECAY, BATCH_SIZE, MAX_DELAY = 64, 0.9, 50, 9
TIME_CONSTANTS = layers.TimeConstants(2, 200)
LARGEST_GRADIENT = 1.0

PROBED = ("lif", "learned")
"""Networks that are probed: one that forgets, and one that need not."""

CHOOSING = ("bptt", "rate-1")
"""The methods that choose settings."""

MORE_SEEDS = 2
"""The number of further seeds where methods are close."""

POINT = 0.01
"""The largest loss of accuracy of a method that is as good as BPTT."""

RESULTS = pathlib.Path(__file__).parent / "results" / "temporal_map"


def add_arguments(parser):
    parser.add_argument(
        "tasks", metavar="TASK", nargs="+", choices=TASKS, help="tasks to map"
    )
    command_line.add_seeds(parser, 3)
    command_line.add_path(parser, "--output", "folder of results", default=RESULTS)
    command_line.add_data_dir(parser)
    probe = "asks analysis.temporal_probe, too"
    parser.add_argument("--probe", action="store_true", help=probe)
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
            complete(results, task, data, arguments.seeds, arguments.probe)
        print(f"\n{name}: {task.about}.\n")
        for network in task.networks:
            print(table(results, network), flush=True)
            if results.find(network=network, method="bptt"):
                maps.append(TaskMap(results, task, network))
    if arguments.show and maps:
        print(summary(maps))
        plots.save(figure(maps), arguments.output / "map.png", dpi=90)


class Results:
    """Results of the trainings of a task: a file whose lines are JSON objects.

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


def methods(timesteps, network):
    """The methods by name, each with its gradient; those that choose settings come
    first. Windows are equal, or differ by a step."""
    by_name = {"bptt": gradients.BPTT()}
    for number in WINDOWS:
        groups = np.array_split(np.arange(timesteps), number)
        sizes = tuple(len(group) for group in groups)
        by_name[f"rate-{number}"] = gradients.Rate(windows=sizes)
    if network != "parallel":
        # Each of its steps alone remembers nothing.
        by_name |= {"sltt": gradients.SLTT(), "ottt": gradients.OTTT()}
    return by_name


def build(task, shape, network, gradient, kernels, learning_rate):
    """A compiled network for inputs `(T, channels)` of a task."""
    timesteps, channels = shape
    inputs = x = keras.Input((channels,))
    for _ in range(2):
        if network == "delays":
            x = layers.Delay(MAX_DELAY)(x)
        x = keras.layers.Dense(UNITS, kernel_initializer=KERNELS[kernels]())(x)
        x = neurons(network, timesteps)(x)
    outputs = keras.layers.Dense(task.outputs)(x)
    model = SpikingModel(
        keras.Model(inputs, outputs),
        timesteps,
        gradient,
        mask_value=task.padding,
    )
    optimizer = keras.optimizers.Adam(learning_rate, global_clipnorm=LARGEST_GRADIENT)
    if task.outputs == 1:
        model.compile(optimizer, "mse")
    else:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss, metrics=["accuracy"])
    return model


def neurons(network, timesteps):
    """The neurons of a network of this name."""
    if network == "spread":
        return layers.LIF(TIME_CONSTANTS)
    if network == "learned":
        return layers.LIF(TIME_CONSTANTS, learn_decay=True)
    if network == "parallel":
        return layers.MaskedPSN(timesteps, timesteps)
    if network == "recurrent":
        synapses = keras.layers.Dense(UNITS, use_bias=False)
        return layers.Recurrent(layers.LIF(DECAY), synapses)
    return layers.LIF(DECAY)


def complete(results, task, data, seeds, with_probe):
    """Trains what is missing."""
    shape = data["train"][0].shape[1:]
    for network in task.networks:
        by_name = methods(shape[0], network)
        compare(results, task, data, network, by_name, seeds)
        close = {name: by_name[name] for name in undecided(results, network, seeds)}
        compare(results, task, data, network, close, seeds + MORE_SEEDS)
    for network in PROBED if with_probe and task.outputs > 1 else ():
        key = {"what": "probe", "network": network}
        if network in task.networks and not results.find(**key):
            results.add(**key, **probed(results, task, data, network))


def compare(results, task, data, network, by_name, seeds):
    """Trains a network by each method with so many seeds, where that is not done."""
    shape = data["train"][0].shape[1:]
    for name, gradient in by_name.items():
        make = functools.partial(build, task, shape, network, gradient)
        key = {"network": network, "method": name}
        if not results.find(**key):
            try:
                make(**_all_settings()[0])
            except ValueError as error:
                results.add(**key, refused=str(error))
        if is_refused(results, key):
            continue
        for seed in range(seeds):
            candidates = [chosen(results, key)] if seed else to_try(results, key)
            for settings in candidates:
                run = {**key, **settings, "seed": seed}
                if results.find(**run):
                    continue
                said = ", ".join(f"{name} {value}" for name, value in run.items())
                print(f"{task.name}: {said}", flush=True)
                keras.utils.set_random_seed(seed)
                results.add(**run, **trained(make(**settings), task, data))


def to_try(results, key):
    """The settings of a method that are tried with the first seed."""
    if key["method"] in CHOOSING:
        return _all_settings()
    settings = []
    for name in CHOOSING:
        one = chosen(results, {**key, "method": name})
        settings += [] if one in settings else [one]
    return settings


def _all_settings():
    return [
        {"kernels": kernels, "learning_rate": learning_rate}
        for kernels, learning_rate in itertools.product(KERNELS, LEARNING_RATES)
    ]


def chosen(results, key):
    """The settings of a method that were best on validation data with the first
    seed."""
    best = max(results.find(**key, seed=0), key=lambda run: run["validation"])
    return {name: best[name] for name in ("kernels", "learning_rate")}


def is_refused(results, key):
    """Whether a method does not train this network."""
    return any("refused" in record for record in results.find(**key))


def undecided(results, network, seeds):
    """The methods that are not told from BPTT, and BPTT: their means differ by less
    than a point, or two standard deviations. Equal scores of all seeds decide."""
    if seeds == 1:
        return []
    by_method = scores_of(results, network)
    exact = by_method["bptt"]
    names = []
    for name, scores in by_method.items():
        spread = math.hypot(np.std(scores, ddof=1), np.std(exact, ddof=1))
        difference = abs(np.mean(scores) - np.mean(exact))
        if name != "bptt" and spread and difference < max(POINT, 2 * spread):
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
    # Else the programs of all trainings would stay.
    keras.utils.clear_session()
    return {
        **scores,
        "epochs": task.epochs,
        "seconds": round(seconds, 2),
        "versions": versions,
    }


def score(model, x, y):
    """The accuracy, or the share of the variance of numbers that is explained."""
    outputs = model.predict(x, batch_size=500, verbose=0)
    if outputs.shape[-1] > 1:
        return float(np.mean(outputs.argmax(-1) == y))
    return 1.0 - float(np.mean(np.square(outputs[:, 0] - y)) / np.var(y))


def probed(results, task, data, network):
    """The answer of `analysis.temporal_probe` on a network with BPTT's settings, and
    its seconds."""
    began = time.process_time()
    x, y = data["train"]
    shape, gradient = x.shape[1:], gradients.BPTT()
    settings = chosen(results, {"network": network, "method": "bptt"})
    result = analysis.temporal_probe(
        functools.partial(build, task, shape, network, gradient, **settings),
        x,
        y,
        data["validation"],
        epochs=task.epochs,
        batch_size=BATCH_SIZE,
        seeds=3,
        verbose=0,
    )
    return {
        "recommended": result.recommended and result.recommended.name,
        "said": result.recommendation,
        "accuracy": {name: seeds.tolist() for name, seeds in result.accuracy.items()},
        "seconds": round(time.process_time() - began, 2),
    }


def best_runs(results, key):
    """The runs of a method with the settings that were chosen, one for each seed."""
    return results.find(**key, **chosen(results, key))


def scores_of(results, network):
    """The scores on test data by method, for the methods that are trained."""
    scores = {}
    for record in results.find(network=network, seed=0):
        key = {"network": network, "method": record["method"]}
        scores[record["method"]] = [run["test"] for run in best_runs(results, key)]
    return scores


class TaskMap:
    """Summary of a network's trainings on a task.

    Args:
        results: `Results`.
        task: `Task`.
        network: String.

    Attributes:
        scores: Dict of methods' lists of scores on test data.
        title: String, the task and the network.
        means: Dict of the means of these scores.
    """

    def __init__(self, results, task, network):
        self.title = f"{task.name}, {network}"
        self.task, self.network = task, network
        self.scores = scores_of(results, network)
        self.means = {name: statistics.mean(run) for name, run in self.scores.items()}
        self.probes = results.find(what="probe", network=network)

    def is_learnt(self):
        """Whether a method learns the task: it is better than chance, or than the
        mean."""
        chance = 1 / self.task.outputs if self.task.outputs > 1 else 0.0
        return max(self.means.values()) > chance + 0.05

    def smallest(self):
        """The smallest number of windows that is within a point of BPTT, or `None`."""
        for number in WINDOWS:
            mean = self.means.get(f"rate-{number}", -math.inf)
            if mean > self.means["bptt"] - POINT:
                return number
        return None


def table(results, network):
    """The results of a network as a Markdown table."""
    rows = []
    runs = results.find(network=network)
    names = dict.fromkeys(run["method"] for run in runs if "method" in run)
    for name in names:
        key = {"network": network, "method": name}
        if is_refused(results, key):
            rows.append((name, "refused", "", "", "", ""))
            continue
        runs = best_runs(results, key)
        scores = markdown.mean_of([run["test"] for run in runs])
        seconds = statistics.median(run["seconds"] for run in runs)
        settings = chosen(results, key).values()
        rows.append((name, scores, *settings, len(runs), f"{seconds:.1f}"))
    columns = (network, "test", "kernels", "learning rate", "seeds", "seconds")
    return markdown.table(columns, rows) + "\n"


def summary(maps):
    """The conclusions for each task, as a Markdown table: the best method, the smallest
    number of windows that is within a point of BPTT, and what the probe recommends."""
    rows = []
    for row in maps:
        best = max(row.means, key=row.means.get)
        cells = [row.title, f"{best}, {row.means[best]:.4f}"]
        cells.append(markdown.mean_of(row.scores["bptt"]))
        cells.append(f"{row.means['rate-1']:.4f}")
        cells.append(row.smallest() or "T" if row.is_learnt() else "not learnt")
        probes = [f"{one['recommended']}, {one['seconds']:.0f} s" for one in row.probes]
        rows.append([*cells, "".join(probes)])
    columns = ("task", "best", "BPTT", "W = 1", "smallest W", "probe")
    return markdown.table(columns, rows)


COLUMNS = {
    "rate-1": "1",
    "rate-2": "2",
    "rate-4": "4",
    "bptt": "BPTT",
    "sltt": "SLTT",
    "ottt": "OTTT",
}


def figure(maps):
    """A panel for each network, in which each task has a row and each method a column:
    scores on test data, coloured by the points that are missing to the best of all
    networks and methods."""
    tasks = list(dict.fromkeys(one.task.name for one in maps))
    best = {
        name: max(max(one.means.values()) for one in maps if one.task.name == name)
        for name in tasks
    }
    drawn = plots.new_figure(9.6, 0.9 + 0.3 * len(tasks))
    panels = drawn.subplots(1, len(NETWORKS), sharey=True, squeeze=False)[0]
    for axes, network in zip(panels, NETWORKS, strict=True):
        missing = np.full((len(tasks), len(COLUMNS)), np.nan)
        for one in maps:
            if one.network != network:
                continue
            row = tasks.index(one.task.name)
            for column, name in enumerate(COLUMNS):
                text = "–"
                if name in one.means:
                    missing[row, column] = best[one.task.name] - one.means[name]
                    text = f"{one.means[name]:.2f}".lstrip("0")
                axes.text(column, row, text, ha="center", va="center", fontsize=7)
        axes.imshow(missing, cmap="OrRd", vmin=0.0, vmax=0.5, aspect="auto", alpha=0.8)
        axes.set_title(network, fontsize="medium")
        axes.set_xticks(range(len(COLUMNS)), COLUMNS.values())
        axes.set_yticks(range(len(tasks)), tasks)
        axes.tick_params(length=0, labelsize=7)
    return drawn


main = command_line.command(
    __name__,
    "temporal_map",
    __doc__,
    add_arguments,
    draw_map,
    "; repeat the command to resume",
)
