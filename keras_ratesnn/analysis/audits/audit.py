"""Audits of published networks: the results of other analyses, side by side."""

import dataclasses
import textwrap
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_ratesnn._core.annotations import Structure
from keras_ratesnn._model.input_checks import inputs_with_time
from keras_ratesnn.analysis import _figures, _observation, _text
from keras_ratesnn.analysis.accuracy.accuracy_over_time import (
    AccuracyOverTime,
    accuracy_over_time,
)
from keras_ratesnn.analysis.costs.breakdown import Costs
from keras_ratesnn.analysis.costs.description import (
    Description,
    activity_table,
    describe,
    names_of,
)
from keras_ratesnn.analysis.costs.energy import Energy
from keras_ratesnn.spiking_model import SpikingModel, checked_model
from keras_ratesnn.testing.samples import sample_dependence

BATCH = 32
"""Samples that are processed at once. Rates and costs are those of the first batch."""

COMPARED = 2
"""Samples whose answers are compared with those in other batches."""

_MOST_LAYERS = 16
"""Neuron layers that a screen has space for."""


class AuditedNumber(NamedTuple):
    """A number of an `Audit`.

    Args:
        name: String.
        value: String.
        definition: String.
        source: String, where the definition comes from.
        command: String, the code that computes it for `model`, `x` and labels `y`, with
            `import keras_ratesnn as rsnn`.
    """

    name: str
    value: str
    definition: str
    source: str
    command: str


@dataclasses.dataclass(frozen=True, eq=False)
class Audit:
    """The result of `audit`; it can be printed.

    Args:
        description: What `keras_ratesnn.describe` says of the first 32 samples.
        energy: `Energy` of these, in int8. Its `dense` is what the same
            network spends without spikes.
        inputs: String, what the network sees at each step.
        dependence: String, where an answer depends on other samples or on earlier
            calls; `""` if it does not.
        accuracy: `AccuracyOverTime`, or `None` without labels.
        data: String, how many samples there are, and of what.
        origin: String, where the network comes from, and what was assumed.
    """

    description: Description
    energy: Energy
    inputs: str
    dependence: str
    accuracy: AccuracyOverTime | None
    data: str
    origin: str

    @property
    def measured(self) -> str:
        """The samples that rates and costs are of, in words."""
        return f"{self.description.samples} of {self.data}"

    @property
    def numbers(self) -> tuple[AuditedNumber, ...]:
        """All numbers, each with its definition, source and command."""
        description, energy = self.description, self.energy
        dense = energy.dense
        described = "rsnn.describe(model, x)"
        spent = "rsnn.analysis.energy(model, x, rsnn.analysis.Costs.int8())"
        traffic = [
            f"{breakdown.memory / energy.costs.memory / 8:,.0f}"
            for breakdown in (energy.spiking, dense)
        ]
        numbers = [
            AuditedNumber(
                "trainable parameters",
                f"{description.parameters:,}",
                "numbers that training changes",
                "Keras",
                f"{described}.parameters",
            ),
            AuditedNumber(
                "time steps",
                f"T = {description.timesteps}, each sees {self.inputs}",
                "how often the network runs for a sample",
                "the file, or what was assumed",
                "model.timesteps",
            ),
            AuditedNumber(
                "firing rate",
                f"{self._rate} at synapses",
                "spikes per neuron and step, at synapses of what they get; silent "
                "neurons never spike, saturated ones at every step of every sample",
                "Yu et al., NeurIPS 2024, figure 5",
                f"{described}.layers",
            ),
            AuditedNumber(
                "synaptic operations",
                f"{description.synaptic_operations:,.0f} a sample",
                "additions, one for each spike and synapse that it feeds",
                "NeuroBench's Effective_ACs",
                f"{described}.synaptic_operations",
            ),
            AuditedNumber(
                "multiply-adds",
                f"{energy.multiply_adds.sum():,.0f} a sample; "
                f"{description.dense_multiply_adds:,.0f} without spikes",
                "one for each synapse whose input is no spike",
                "NeuroBench's Effective_MACs, but for zeros",
                f"{spent}.multiply_adds",
            ),
            AuditedNumber(
                "memory traffic",
                f"{traffic[0]} bytes a sample; {traffic[1]} without spikes",
                "weights, membranes and inputs of layers, read and written, in int8",
                "docs/analysis.md",
                f"{spent}.spiking.memory",
            ),
            AuditedNumber(
                "energy",
                f"{_text.joules(energy.total)} a sample; {_text.joules(dense.total)} "
                "without spikes",
                "operations and memory traffic, both in int8 and 45 nm CMOS",
                "Horowitz, ISSCC 2014",
                f"{spent}.total",
            ),
            AuditedNumber(
                "breaks even",
                f"spiking wins {energy.wins(dense)}",
                "where both spend the same, if the rates of all layers change by one "
                "factor",
                "docs/analysis.md",
                f"{spent}.dense.crossover",
            ),
            AuditedNumber(
                "depends on its batch",
                self.dependence or "no",
                "whether answers of two samples change with others or earlier calls, "
                "and the first layer where they do",
                "this library",
                "rsnn.testing.check_sample_independence(model, x)",
            ),
        ]
        if self.accuracy is not None:
            *fewer, last = [f"{share:.4f}" for share in self.accuracy.accuracy]
            numbers.append(
                AuditedNumber(
                    "accuracy",
                    f"{last} of {self.accuracy.samples} samples; after fewer steps "
                    f"{' '.join(fewer) or 'none'}",
                    "share of samples whose class has the largest mean output",
                    "Keras",
                    "rsnn.analysis.accuracy_over_time(model, x, y).accuracy",
                )
            )
        return tuple(numbers)

    @property
    def _rate(self):
        return _text.percent(self.energy.firing_rate, "an unknown rate")

    @property
    def verdict(self) -> str:
        """The conclusion from the numbers, with its assumptions: a sentence, after one
        that names silent layers if there are any."""
        energy, dense = self.energy, self.energy.dense
        if self.description.nan or not dense.total:
            reason = self.description.nan or energy.verdict
            return f"No verdict on {self.measured}: {reason}"
        silent = ""
        if self.description.dead:
            silent = (
                f"SILENT: no neuron spikes in {names_of(self.description.dead)}. Such "
                "layers spend little and pass nothing on. "
            )
        depends = "depends" if self.dependence else "does not depend"
        return (
            f"{silent}On {self.measured}, by costs of int8 in 45 nm CMOS with memory "
            f"traffic, the network spends {energy.total / dense.total:.3g} of what it "
            f"would spend without spikes: spiking wins {energy.wins(dense)}, and the "
            f"network fires at {self._rate}; a sample's answer {depends} on its batch."
        )

    def __str__(self) -> str:
        layers = self.description.layers
        if len(layers) > _MOST_LAYERS:
            by_rate = sorted(layers, key=lambda layer: layer.firing_rate)
            half = _MOST_LAYERS // 2
            extremes = {*by_rate[:half], *by_rate[-half:]}
            layers = tuple(layer for layer in layers if layer in extremes)
        left_out = len(self.description.layers) - len(layers)
        numbers = [f"{name:22}{value}" for name, value, *_ in self.numbers]
        if left_out:
            numbers.insert(0, f"... and {left_out} layers with rates between these")
        before = [*self.origin.splitlines(), f"On {self.measured}:"]
        lines = _wrapped(before, 4) + activity_table(layers)
        return "\n".join(lines + _wrapped(numbers, 22) + _wrapped([self.verdict], 0))

    def print(self) -> None:
        """Prints the audit: one screen."""
        print(self)

    def plot(self) -> Any:
        """Draws the firing rate of each layer, with the rate at which the network would
        break even with the same network without spikes, in int8.

        Returns:
            A `matplotlib.figure.Figure`.

        Raises:
            ImportError: If Matplotlib is not installed.
        """
        layers = self.description.layers
        # Deep networks have many layers with long names.
        figure, axes = _figures.new_figure(6.5, 2 + 0.25 * len(layers))
        rates = [layer.firing_rate for layer in layers]
        axes.barh(range(len(rates)), rates, color="0.65", edgecolor="black")
        axes.set_yticks(range(len(rates)), [layer.name for layer in layers])
        axes.invert_yaxis()
        lines = {
            "--": (self.energy.dense.crossover, "breaks even with int8"),
            ":": (self.energy.firing_rate, "mean at synapses"),
        }
        for style, (rate, label) in lines.items():
            if np.isfinite(rate):
                text = f"{label}: {rate:.1%}"
                axes.axvline(rate, color="black", linestyle=style, label=text)
        axes.set(xlabel="spikes per neuron and step", title=f"on {self.measured}")
        axes.grid(alpha=0.3, axis="x")
        axes.margins(y=0.01)
        figure.legend(fontsize="small", loc="outside lower center", ncols=2)
        return figure

    def to_dict(self) -> dict[str, Any]:
        """All numbers as Python's own types, as for JSON; what is not finite is
        `None`."""
        description, energy = self.description, self.energy
        dense = energy.dense
        rates = {"firing_rate": energy.firing_rate, "break_even": dense.crossover}
        accuracy = None if self.accuracy is None else self.accuracy.accuracy.tolist()
        return {
            "origin": self.origin,
            "data": self.data,
            "inputs": self.inputs,
            "timesteps": description.timesteps,
            "parameters": description.parameters,
            "layers": [dataclasses.asdict(layer) for layer in description.layers],
            "synaptic_operations": description.synaptic_operations,
            "multiply_adds": float(energy.multiply_adds.sum()),
            "multiply_adds_without_spikes": description.dense_multiply_adds,
            "joules": energy.spiking.parts,
            "joules_without_spikes": dense.parts,
            **{
                name: rate if np.isfinite(rate) else None
                for name, rate in rates.items()
            },
            "dependence": self.dependence,
            "accuracy": accuracy,
            "verdict": self.verdict,
        }


def audit(model: SpikingModel, x: Structure, y: Any = None) -> Audit:
    """Puts side by side what a network is, does and costs, as for a file that somebody
    published: activity, operations, energy, dependence between samples, accuracy.

    It runs `keras_ratesnn.describe`, whose energy it takes in int8,
    `keras_ratesnn.testing.check_sample_independence`, and `accuracy_over_time`. Rates
    and costs are those of the first 32 samples, and answers of two are compared. The
    model runs in inference mode and is not changed, unless its answers depend on other
    samples or earlier calls.

    Example:

    >>> model = keras_ratesnn.models.load_pretrained("digits")
    >>> x = np.random.default_rng(0).integers(0, 17, (8, 8, 8, 1))
    >>> found = audit(model, x, np.zeros(8))
    >>> found.inputs, found.dependence, len(found.accuracy.accuracy)
    ('the same (8, 8, 1)', '', 4)
    >>> found.numbers[0].name, found.numbers[0].value
    ('trainable parameters', '223,690')

    Args:
        model: A `SpikingModel`. What `from_checkpoint` reports of it is in the result.
        x: Inputs, as for `model.predict`, of at least two samples that differ.
        y: Array, the labels, as for `accuracy_over_time`. Defaults to `None`: accuracy
            is not measured.

    Returns:
        `Audit`.

    Raises:
        TypeError: If `model` is not a `SpikingModel`.
        ValueError: If `x` does not fit the model, has fewer than two samples, or they
            are the same, or the labels do not fit, as in `accuracy_over_time`.
    """
    model = checked_model(model)
    batch = _first(x, BATCH)
    description = describe(model, batch, verbose=False)
    accuracy = None
    if y is not None:
        accuracy = accuracy_over_time(model, x, y, batch_size=BATCH, verbose=0)
    has_time = inputs_with_time(model, batch)
    shapes = [str(tuple(tensor.shape[1:])) for tensor in model.inputs]
    return Audit(
        description,
        dataclasses.replace(description.energy, costs=Costs.int8()),
        inputs=f"{'its own' if has_time else 'the same'} {', '.join(shapes)}",
        dependence=sample_dependence(model, _first(x, COMPARED)),
        accuracy=accuracy,
        data=f"{_observation.samples(x)} samples",
        origin=str(getattr(model, "checkpoint_report", model.name)),
    )


def _first(x: Structure, samples: int) -> Structure:
    return keras.tree.map_structure(lambda array: array[:samples], x)


def _wrapped(texts, indent):
    """Texts as lines of a screen."""
    return [textwrap.fill(text, 88, subsequent_indent=" " * indent) for text in texts]
