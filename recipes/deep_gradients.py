"""How good gradients are in deep networks, by depth and epoch: `python -m
recipes.deep_gradients --data-dir FOLDER`.

ResNet-18 and VGG-11 of a quarter of their width are trained by rate with one window, on
the first images of Fashion-MNIST. After some epochs the gradients of other methods, for
the same weights and the first batch of these images, are compared with BPTT's, kernel
by kernel. Networks that the file of results has are not trained again; `--show` trains
nothing, prints the table of what there is, and draws the figure beside the file.
"""

import collections
import itertools
import pathlib

import keras
import numpy as np

from keras_ratesnn import SpikingModel, analysis, gradients, models
from recipes import command_line, markdown, plots
from recipes.data import fashion_mnist
from recipes.temporal_map import Results

RESULTS = pathlib.Path(__file__).parent / "results" / "deep_gradients" / "kernels.jsonl"
FIGURE = "deep_gradients.png"

NETWORKS = {"ResNet-18": models.ResNet18, "VGG-11": models.VGG11}
TIMESTEPS, SEEDS = (4, 8), 3
EPOCHS = (0, 1, 2, 5, 15)
"""The numbers of epochs after which gradients are compared."""

WIDTH, IMAGES, BATCH_SIZE = 0.25, 2048, 32
COMPARED = 128
"""Images in the batch of which gradients are compared."""

METHODS = ("W = 1", "W = 2", "halves", "SLTT")


def add_arguments(parser):
    command_line.add_results(parser, RESULTS, FIGURE)
    command_line.add_data_dir(parser)


def run(arguments):
    with command_line.mistakes():
        results = Results(arguments.output)
        if not arguments.show:
            complete(results, fashion_mnist.load(arguments.data_dir))
    print(table(results))
    if arguments.show:
        plots.save(figure(results), arguments.output.with_name(FIGURE), dpi=90)


def complete(results, data):
    """Trains what is missing."""
    for timesteps, seed, network in itertools.product(
        TIMESTEPS, range(SEEDS), NETWORKS
    ):
        key = {"network": network, "timesteps": timesteps, "seed": seed}
        if results.find(**key):
            continue
        print(key, flush=True)
        # What is interrupted begins anew.
        for record in list(trained(data, **key)):
            results.add(**key, **record)
        # Else the programs of all trainings would stay.
        keras.utils.clear_session()


def trained(data, network, timesteps, seed):
    """Trains a network; yields a record for each number of epochs, with a list of
    numbers, one for each kernel, for each method."""
    keras.utils.set_random_seed(seed)
    x = data.train_images[:IMAGES] / np.float32(fashion_mnist.LARGEST_PIXEL)
    y = data.train_labels[:IMAGES]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = NETWORKS[network](x.shape[1:], timesteps=timesteps, width=WIDTH)
    model.compile("adam", loss)
    half = timesteps // 2
    methods = [*map(gradients.Rate, (1, 2, (half, half))), gradients.SLTT()]
    twins = [SpikingModel(model.network, timesteps, method) for method in methods]
    for before, epochs in itertools.pairwise((0, *EPOCHS)):
        if epochs:
            model.fit(x, y, BATCH_SIZE, epochs, verbose=0, initial_epoch=before)
        found = [
            analysis.gradient_agreement(twin, x[:COMPARED], y[:COMPARED], loss=loss)
            for twin in twins
        ]
        yield {
            "epochs": epochs,
            "methods": METHODS,
            "cosine": [one.cosine.round(4).tolist() for one in found],
            "norm_ratio": [one.norm_ratio.round(4).tolist() for one in found],
        }


def by_case(results):
    """Pairs of a network, T and a number of epochs, and of arrays `(2, seeds, methods,
    kernels)`: cosines and ratios. The last kernel, whose gradients are equal, is left
    out."""
    cases = collections.defaultdict(list)
    for record in results.find():
        case = record["network"], record["timesteps"], record["epochs"]
        cases[case].append((record["cosine"], record["norm_ratio"]))
    for case in sorted(cases):
        yield case, np.swapaxes(cases[case], 0, 1)[..., :-1]


def table(results):
    """Of all kernels and seeds the median of the cosines, their lowest, and the median
    ratio of the norms: a Markdown table."""
    rows = []
    for case, values in by_case(results):
        middle, lowest = np.median(values, axis=(1, 3)), values.min(axis=(1, 3))
        cells = [
            f"{cosine:.2f} ({low:.2f}), {norm_ratio:.2f}"
            for cosine, norm_ratio, low in zip(*middle, lowest[0], strict=True)
        ]
        rows.append((*case, values.shape[1], *cells))
    return markdown.table(("network", "T", "epochs", "seeds", *METHODS), rows)


def figure(results):
    """The mean cosine of each kernel: a row of panels for each network and T, a column
    for each number of epochs."""
    cases = list(by_case(results))
    rows = len(cases) // len(EPOCHS)
    result = plots.new_figure(12, 2.4 * rows)
    panels = result.subplots(rows, len(EPOCHS), sharey=True, squeeze=False)
    for axes, (case, values) in zip(panels.flat, cases, strict=True):
        for index, method in enumerate(METHODS):
            cosine = values[0, :, index].mean(0)
            axes.plot(cosine, label=method, **plots.style(index))
        plots.dress(axes, "{}, T = {}, {} epochs".format(*case))
    panels[0, 0].legend(fontsize="small")
    result.supxlabel("kernel, from the first layer on")
    result.supylabel("cosine to BPTT's gradient")
    return result


main = command_line.command(__name__, "deep_gradients", __doc__, add_arguments, run)
