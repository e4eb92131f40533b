"""How much of a network's code is rate: its accuracy after the spikes of each neuron
are shuffled in time."""

import dataclasses
from typing import Any

import numpy as np
from keras import ops

from keras_ratesnn import _graph
from keras_ratesnn._core import checks, keras_internals, time_axis
from keras_ratesnn._core.annotations import Structure
from keras_ratesnn._core.progress import Verbosity
from keras_ratesnn._graph import Signal
from keras_ratesnn.analysis import _accuracy, _figures, _observation
from keras_ratesnn.spiking_model import SpikingModel, checked_model


@dataclasses.dataclass(frozen=True, eq=False)
class ShuffledAccuracy:
    """The result of `shuffle_in_time`.

    Args:
        accuracy: Float, the accuracy of the model.
        shuffled: Float, the accuracy with the spikes of all neuron layers shuffled in
            time.
        per_layer: Dict from the name of each neuron layer to the accuracy if only the
            spikes of that layer are shuffled.
        samples: Integer, the number of samples.
    """

    accuracy: float
    shuffled: float
    per_layer: dict[str, float]
    samples: int

    def plot(self) -> Any:
        """Draws the accuracy with each layer shuffled, with all of them, and with none.

        Error bars are standard errors for this number of samples.

        Returns:
            A `matplotlib.figure.Figure`.

        Raises:
            ImportError: If Matplotlib is not installed.
        """
        names = (*self.per_layer, "all layers")
        figure, axes = _figures.new_figure(_figures.width_for(len(names)), 3.6)
        colors = ["0.65"] * len(self.per_layer) + ["0.25"]
        accuracies = np.array([*self.per_layer.values(), self.shuffled])
        style = {
            "color": colors,
            "edgecolor": "black",
            "capsize": 2,
            "error_kw": {"elinewidth": 1},
        }
        errors = _accuracy.standard_error(accuracies, self.samples)
        bars = axes.bar(range(len(names)), accuracies, yerr=errors, **style)
        axes.bar_label(bars, fmt="%.3f", fontsize="small", padding=4)
        axes.axhline(
            self.accuracy,
            color="black",
            linestyle="--",
            label=f"not shuffled: {self.accuracy:.3f}, {self.samples} samples",
        )
        axes.set(
            ylabel="accuracy",
            ylim=(0, 1.1),
            yticks=np.linspace(0, 1, 6),
            xlabel="where spikes are shuffled in time",
        )
        _figures.name_layers(axes, names)
        figure.legend(fontsize="small", loc="outside upper center")
        return figure


def shuffle_in_time(
    model: SpikingModel,
    x: Structure,
    y: Any,
    seed: int = 0,
    batch_size: int = 128,
    threshold: float = 0.5,
    verbose: Verbosity = "auto",
) -> ShuffledAccuracy:
    """Measures the accuracy after the spikes of each neuron are shuffled in time, which
    keeps all spike counts.

    Each neuron and sample has a separate permutation. A network that encodes
    information in firing rates loses little accuracy; one that encodes it in spike
    times falls to chance level, and `gradient="rate"` does not suit it. The model runs
    in inference mode and is not changed. With L neuron layers it runs L + 2 times.

    Example:

    >>> model = keras_ratesnn.models.load_pretrained("digits")
    >>> found = shuffle_in_time(model, np.zeros((4, 8, 8, 1)), np.zeros(4), verbose=0)
    >>> list(found.per_layer)
    ['lif', 'lif_1', 'lif_2']

    Args:
        model: A `SpikingModel` with one output.
        x: Inputs, as for `model.predict`.
        y: Array, the labels: class indices, one-hot vectors, or 0 and 1 for each
            output, as for `"accuracy"` in Keras.
        seed: Integer >= 0, of the permutations, which are the same on all backends.
            Defaults to `0`.
        batch_size: Integer, the number of samples that are processed at once. Defaults
            to `128`.
        threshold: Float, the output above which a binary label is 1; 0 for logits.
            Defaults to `0.5`.
        verbose: `"auto"`, 0, 1 or 2, as in `model.predict`: 1 shows a progress bar, 2 a
            line at the end, 0 nothing. Defaults to `"auto"`, which is 1.

    Returns:
        `ShuffledAccuracy`.

    Raises:
        TypeError: If `model` is not a `SpikingModel`, or a number has the wrong type.
        ValueError: If `seed` is negative, `batch_size` is not >= 1, `verbose` is
            unknown, the model has several outputs, `x` and `y` do not have the same
            number of samples, or a label is of no class.

    Source: Yu et al., NeurIPS 2024, table 2.
    """
    model = checked_model(model)
    seed = checks.integer("seed", seed, at_least=0)
    threshold = checks.real("threshold", threshold)
    names: list[str] = []
    right = []
    batches = _accuracy.batches(model, x, y, batch_size, verbose)
    for batch, (inputs, labels) in enumerate(batches):
        outputs, names = _run(model, inputs, (), None)
        outputs_by_run = [outputs]
        single_layers = [[name] for name in names]
        for layers in (names, *single_layers):
            random = np.random.default_rng([seed, batch])
            outputs, _ = _run(model, inputs, layers, random)
            outputs_by_run.append(outputs)
        right.append(
            [
                _accuracy.right(labels, time_axis.widen(outputs), threshold)
                for outputs in outputs_by_run
            ]
        )
    accuracy, shuffled, *per_layer = np.hstack(right).mean(axis=1).tolist()
    return ShuffledAccuracy(
        accuracy,
        shuffled,
        dict(zip(names, per_layer, strict=True)),
        _observation.samples(x),
    )


def _run(model, inputs, layers, random):
    """The outputs of a model with the spikes of some layers shuffled, and the names of
    all its neuron layers."""
    names, counts = _graph.Names(), _observation.steps_that_count(model, inputs)

    def observe(call, outputs):
        if _observation.is_neuron(call) and names.add(call.operation.name) in layers:
            return _shuffled(outputs, counts, random)
        return outputs

    return _observation.observed(model, inputs, observe), names.all


def _shuffled(signal, counts, random):
    """A signal of all steps, with the steps of each sample and neuron in an order of
    their own; padding stays where it is."""
    steps = np.array(
        ops.convert_to_numpy(
            time_axis.unfold(time_axis.widen(signal.value), counts.shape[1])
        )
    )
    if counts.all():
        steps = random.permuted(steps, axis=1)
    else:
        for sample, counting in enumerate(counts):
            steps[sample, counting] = random.permuted(steps[sample, counting], axis=0)
    tensor = ops.convert_to_tensor(steps, dtype=signal.value.dtype)
    return Signal(keras_internals.masked_as(time_axis.fold(tensor), signal.value))
