"""Differences between methods, paired by seed: `python -m recipes.compare.parity
fashion_mnist --epochs 40`.

Reads the committed results of a recipe. Each method is compared with BPTT on the seeds
that both have: the mean difference in test accuracy, and its 95 % interval (Student's
t). `--plot` draws the curves.
"""

import statistics

import numpy as np

from recipes import command_line, markdown, packages, plots
from recipes import methods as method_names
from recipes.compare import results

AGAINST = "bptt multi"
"""The method that others are compared with."""

METHOD = {
    "branches",
    "gradient",
    "levels",
    "normalization",
    "one_step_epochs",
    "random_steps",
    "random_timesteps",
    "recompute",
    "seed",
    "start_from",
    "step_distillation",
    "step_mode",
    "temporal",
    "weights",
    "windows",
}
"""Settings in which compared runs may differ: the seed, and what the name of a method
tells."""


def add_arguments(parser):
    parser.add_argument("recipe", metavar="NAME", help=command_line.RECIPE)
    epochs = "number of epochs of the runs to compare"
    command_line.add_count(parser, "--epochs", epochs, required=True)
    command_line.add_path(
        parser, "--plot", "draws the curves, and the accuracies of all seeds", "FILE"
    )


def compare(arguments):
    with command_line.mistakes():
        figure = arguments.plot and plots.new_figure(12, 4, arguments.plot)
        records = results.committed()
        methods = by_method(records, arguments.recipe, arguments.epochs)
        if AGAINST not in methods:
            known = {
                f"{record['settings']['name']} --epochs {record['settings']['epochs']}"
                for record in records
                if record["settings"]["gradient"] == "bptt"
            }
            raise ValueError(
                f"There is no result by BPTT of {arguments.recipe!r} with --epochs "
                f"{arguments.epochs}. There are results of: "
                f"{', '.join(sorted(known))}."
            )
        print(table(methods))
        if figure:
            draw(figure, methods)
            plots.save(figure, arguments.plot, dpi=150)


def by_method(records, recipe, epochs):
    """The results of a recipe with this number of epochs: a dictionary from names of
    methods to records by seed.

    Only the settings of the method and the seed may differ; of several groups of such
    runs the largest is taken.
    """
    groups: dict = {}
    for record in records:
        settings = record["settings"]
        asked = (settings["name"], settings["epochs"]) == (recipe, epochs)
        if not asked or "comparison" in record:
            continue
        common = [
            (key, value)
            for key, value in results.settings_of(record).items()
            if key not in METHOD
        ]
        key_of_group = repr((sorted(common, key=str), record["backend"]))
        group = groups.setdefault(key_of_group, {})
        name = f"{results.method_name(settings, ' ')} {settings['step_mode']}"
        group.setdefault(name, {})[settings["seed"]] = record
    return max(
        groups.values(), key=lambda group: sum(map(len, group.values())), default={}
    )


def table(methods):
    """A Markdown table of accuracies and paired differences, in points of a percent."""
    rows = []
    for name, by_seed in methods.items():
        accuracies = [record["test_accuracy"] for record in by_seed.values()]
        cells = ["", ""]
        if name != AGAINST:
            mean, half = difference(by_seed, methods[AGAINST])
            cells = [f"{mean:+.2f}", "one seed" if half is None else f"± {half:.2f}"]
        rows.append((name, len(by_seed), markdown.mean_of(accuracies), *cells))
    return markdown.table(
        ("method", "seeds", "test accuracy", "difference, points", "95 % interval"),
        rows,
    )


def difference(by_seed, base):
    """`(mean, half)`: the mean difference to the base on common seeds, in points, and
    half its 95 % interval, or `None` for one seed.

    Raises:
        ValueError: If there is no common seed.
    """
    seeds = sorted(by_seed.keys() & base.keys())
    if not seeds:
        raise ValueError(
            f"the methods have no seed in common: {sorted(by_seed)} and {sorted(base)}."
        )
    points = [
        100 * (by_seed[seed]["test_accuracy"] - base[seed]["test_accuracy"])
        for seed in seeds
    ]
    if len(points) == 1:
        return points[0], None
    stats = packages.imported("scipy.stats", "The interval of Student", "recipes")
    low, high = stats.ttest_1samp(points, 0).confidence_interval()
    return (low + high) / 2, (high - low) / 2


def draw(figure, methods):
    """Draws accuracies after each epoch, means over seeds, and those of all seeds after
    the last, into an empty figure."""
    *curves, last = figure.subplots(1, 3, width_ratios=(3, 3, 2))
    titles = {"accuracy": "training accuracy", "test_accuracy": "test accuracy"}
    for axes, (key, title) in zip(curves, titles.items(), strict=True):
        for index, (name, by_seed) in enumerate(methods.items()):
            own = [record["curve"][key] for record in by_seed.values()]
            means = np.mean(own, axis=0)
            label = method_names.legend(*name.rsplit(" ", 1))
            style = {**plots.style(index), "marker": ""}
            axes.plot(range(1, len(means) + 1), means, label=label, **style)
        plots.dress(axes, title, "epoch", "lower right" if axes is curves[0] else None)
    for index, by_seed in enumerate(methods.values()):
        accuracies = [record["test_accuracy"] for record in by_seed.values()]
        deviation = statistics.stdev(accuracies) if len(accuracies) > 1 else None
        style = plots.style(index)
        last.scatter(
            [index - 0.2] * len(accuracies), accuracies, color=style["color"], s=8
        )
        last.errorbar(index, statistics.mean(accuracies), deviation, capsize=4, **style)
    plots.dress(
        last, "test accuracy after the last epoch", "seeds; mean ± standard deviation"
    )
    last.set(xticks=[], xlim=(-0.7, len(methods) - 0.5))


main = command_line.command(__name__, "compare.parity", __doc__, add_arguments, compare)
