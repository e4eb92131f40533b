"""One picture of what the library gives: `python -m recipes.overview --output docs/images/overview.png`.

Firing rates of a shipped network, and how close its gradient is to BPTT's, are measured on a batch of training images. What a
training step costs against T is read from a record of `recipes.benchmark.against_timesteps`.
"""

import pathlib

import numpy as np

from recipes import command_line, figures, plots
from recipes.benchmark import against_timesteps

RECORD = pathlib.Path(__file__).parent.parent / "docs" / "images" / "against_timesteps" / "digits.json"


def add_arguments(parser):
    parser.add_argument("--network", default="fashion_mnist", metavar="NAME", help="a shipped network (default: %(default)s)")
    command_line.add_count(parser, "--images", "size of the batch", 128)
    command_line.add_path(parser, "--record", "(default: that of the digits)", "FILE", default=RECORD)
    command_line.add_data_dir(parser)
    command_line.add_path(parser, "--output", "the picture", "FILE", required=True)


def overview(arguments):
    with command_line.mistakes():
        # The file is checked before anything is measured.
        plots.new_figure(1, 1, arguments.output)
        record = against_timesteps.read_record(arguments.record)
        subject = figures.Subject(*figures.model_and_data(arguments.network, arguments.data_dir), arguments.images, 1)
        rates = figures.FIGURES["firing_rates"](subject)
        agreement = figures.FIGURES["gradient_agreement"](subject)
        plots.save(draw(rates, agreement, record), arguments.output, dpi=180)


def draw(rates, agreement, record):
    """A figure with a panel for firing rates, for the gradients, and for each cost.

    Args:
        rates: `keras_ratesnn.analysis.FiringRates`.
        agreement: `keras_ratesnn.analysis.GradientAgreement`.
        record: Dictionary, see `against_timesteps.measure`.
    """
    _, *costs = against_timesteps.panels(record)
    figure = plots.new_figure(2.45 * (2 + len(costs)), 2.75)
    of_rates, of_gradients, *of_costs = figure.subplots(1, 2 + len(costs))
    draw_rates(of_rates, rates)
    draw_agreement(of_gradients, agreement)
    for axes, panel in zip(of_costs, costs, strict=True):
        against_timesteps.draw_panel(axes, record, *panel)
    return figure


def draw_rates(axes, rates):
    """The mean rate of each layer."""
    numbers = range(1, len(rates.layers) + 1)
    axes.bar(numbers, rates.mean, color="0.6", edgecolor="black")
    plots.dress(axes, "spikes per neuron and step", "neuron layer")
    axes.set_xticks(numbers)


def draw_agreement(axes, agreement):
    """The cosine similarity of the gradients of each kernel."""
    numbers = range(1, len(agreement.layers) + 1)
    axes.plot(numbers, agreement.cosine, color="black", marker="o")
    axes.axhline(1, color="0.6", linewidth=1)
    plots.dress(axes, f"cosine to {agreement.other.upper()}'s gradient", "kernel")
    axes.set(xticks=numbers, ylim=(min(0.9, np.nanmin(agreement.cosine) - 0.02), 1.01))


main = command_line.command(__name__, "overview", __doc__, add_arguments, overview)
