"""Compares the gradient for time windows with BPTT's, layer by layer: `python -m
recipes.windows digits`.

The table has a row for each choice of windows and a column for each kernel, from the
first layer to the last; for more than 12 kernels it has their smallest and their median
instead. It shows the cosine similarity between the kernel's gradient and that of
backpropagation through time. The last column is the ratio of the norms of all kernel
gradients. The comparison uses one batch of training images, without augmentation, and
initial weights or those of a run.
"""

import keras
import numpy as np

from keras_ratesnn import analysis, gradients
from recipes import catalogue, command_line, device, markdown, plots, run
from recipes.checkpoint import load_model
from recipes.checks import mistake
from recipes.evaluate import recipe_of
from recipes.run_folder import RunFolder

OF_DATA = ("train_images", "held_out", "image_side", "frame_kind")
"""The settings that `--set` may have for a run."""

USED = (
    *OF_DATA,
    "width",
    "timesteps",
    "levels",
    "weights",
    "normalization",
    "temporal",
    "step_mode",
    "precision",
    "seed",
)
"""The settings that `--set` may have for a recipe."""

MOST_COLUMNS = 12
"""Kernels that fit into a table."""


def add_arguments(parser):
    command_line.add_recipe(
        parser, "name of a recipe, or folder of one of its runs for trained weights"
    )
    command_line.add_count(parser, "--images", "size of the batch", 128)
    command_line.add_path(
        parser, "--plot", "draws cosine and cost against the number of windows", "FILE"
    )


def compare_windows(arguments):
    folder = RunFolder(arguments.recipe)
    with command_line.mistakes():
        figure = arguments.plot and plots.new_figure(9, 4, arguments.plot)
        trained = folder.settings.exists()
        if not trained and arguments.recipe not in catalogue.RECIPES:
            raise ValueError(
                f"There is neither a run in a folder {arguments.recipe} nor a recipe "
                f"of this name. The recipes are: {', '.join(catalogue.RECIPES)}."
            )
        recipe = recipe_of(folder) if trained else catalogue.find(arguments.recipe)
        used, advice = (
            (OF_DATA, "The run has its own.")
            if trained
            else (USED, "It does not change the initial gradients.")
        )
        recipe = catalogue.chosen(
            arguments,
            dict.fromkeys(recipe.settings().keys() - {*used}, advice),
            recipe=recipe,
        )
        recipe.check_classifies("windows")
        if recipe.normalization == "online":
            must = (
                "'batch' or 'weight': time windows need neurons with thresholds of "
                "their own"
            )
            raise mistake("normalization", must, "online")
        device.set_precision(recipe.precision)
        dataset = recipe.load(arguments.data_dir, in_memory_for="windows")
        model = load_model(folder.last) if trained else run.build(recipe, dataset)
    images, labels = (
        dataset.train_images[: arguments.images],
        dataset.train_labels[: arguments.images],
    )
    found = cosines(model, images, labels)
    print(table(found))
    if figure:
        draw(figure, found, model.timesteps)
        plots.save(figure, arguments.plot, dpi=150)


def choices(timesteps):
    """Windows to compare: some numbers from 1 to T, and two equal halves."""
    halves = (timesteps // 2, timesteps - timesteps // 2)
    return [
        *range(1, min(timesteps, 4)),
        *([halves] if timesteps > 2 else []),
        timesteps,
    ]


def cosines(model, images, labels):
    """`(cosines, norm ratio)` of a model and a batch for each choice of windows;
    cosines are a dict of layer names."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    compared = {}
    for windows in choices(model.timesteps):
        model.gradient = gradients.Rate(windows=windows)
        found = analysis.gradient_agreement(model, images, labels, loss=loss)
        compared[windows] = (
            dict(zip(found.layers, found.cosine, strict=True)),
            found.total_norm_ratio,
        )
    return compared


def table(compared):
    """The result of `cosines` as a Markdown table."""
    rows = [
        (windows, _shown(by_kernel), ratio)
        for windows, (by_kernel, ratio) in compared.items()
    ]
    cells = (
        (windows, *(f"{cosine:.3f}" for cosine in shown.values()), f"{ratio:.2f}")
        for windows, shown, ratio in rows
    )
    return markdown.table(("windows", *rows[0][1], "norm ratio"), cells)


def _shown(by_kernel):
    """The cosines of all kernels by name, or what sums them up; kernels without a
    gradient have none."""
    if len(by_kernel) <= MOST_COLUMNS:
        return by_kernel
    cosines = list(by_kernel.values())
    return {"smallest": np.nanmin(cosines), "median": np.nanmedian(cosines)}


def draw(figure, compared, timesteps):
    """Draws the result of `cosines`, next to the cost of a training step."""
    agreement, cost = figure.subplots(1, 2)
    numbers = [windows for windows in compared if isinstance(windows, int)]
    names = list(compared[1][0])
    for index, name in enumerate(names):
        # Also distinguishable in grey: from dark (first layer) to light.
        shade = 0.75 * index / max(1, len(names) - 1)
        values = [compared[windows][0][name] for windows in numbers]
        agreement.plot(
            numbers, values, label=name, color=str(shade), marker="osv^Dx*"[index % 7]
        )
    cost.plot(
        numbers,
        [timesteps + 2 * windows for windows in numbers],
        color="black",
        marker="o",
        label="rate, T + 2W",
    )
    cost.axhline(3 * timesteps, color="0.4", linestyle="--", label="BPTT, 3T")
    cost.set_ylim(bottom=0)
    label = f"windows W, T = {timesteps}"
    plots.dress(agreement, "cosine with BPTT's gradient, by layer", label, "best")
    plots.dress(
        cost,
        "cost of a training step, forward passes of one step",
        label,
        "lower right",
    )
    agreement.set_xticks(numbers)
    cost.set_xticks(numbers)


main = command_line.command(
    __name__, "windows", __doc__, add_arguments, compare_windows
)
