"""How often neurons spike: by layer and time step."""

import dataclasses
from typing import Any

import numpy as np

from keras_ratesnn import _graph
from keras_ratesnn._core.annotations import Structure
from keras_ratesnn.analysis import _figures, _observation
from keras_ratesnn.spiking_model import SpikingModel, checked_model


@dataclasses.dataclass(frozen=True, eq=False)
class FiringRates:
    """The result of `firing_rates`.

    Args:
        timesteps: Integer T.
        layers: Tuple of strings, the names of the L neuron layers in execution order.
        by_step: Array `(L, T)`: spikes per neuron at each step, of the samples for
            which it is not padding.
        by_neuron: Tuple of L arrays with the shapes of the layers' outputs: spikes per
            time step of each neuron, the mean over the batch.

    Rates are NaN from the first layer on whose currents are NaN or infinite for a
    sample, as the outputs for it are.
    """

    timesteps: int
    layers: tuple[str, ...]
    by_step: np.ndarray
    by_neuron: tuple[np.ndarray, ...]

    @property
    def mean(self) -> np.ndarray:
        """Spikes per neuron and time step of each layer, `(L,)`."""
        return np.array([rates.mean() for rates in self.by_neuron])

    def plot(self) -> Any:
        """Draws the rate of each layer against the time step, and its mean over time.

        Returns:
            A `matplotlib.figure.Figure`.

        Raises:
            ImportError: If Matplotlib is not installed.
        """
        size = 4.5 + _figures.width_for(len(self.layers)), 3.8
        figure, (over_time, means) = _figures.new_figure(
            *size, 1, 2, sharey=True, width_ratios=(3, 2)
        )
        steps = np.arange(1, self.timesteps + 1)
        indices = range(len(self.layers))
        colors = [_figures.shade(index, len(self.layers)) for index in indices]
        for index, name in enumerate(self.layers):
            over_time.plot(
                steps,
                self.by_step[index],
                label=name,
                color=colors[index],
                marker=_figures.MARKERS[index % len(_figures.MARKERS)],
            )
        over_time.set(xlabel="time step", ylabel="spikes per neuron", ylim=(0, None))
        over_time.set_xticks(_figures.step_ticks(self.timesteps))
        over_time.grid(alpha=0.3)
        means.bar(indices, self.mean, color=colors, edgecolor="black")
        means.set_title("mean over time", fontsize="medium")
        _figures.name_layers(means, self.layers)
        figure.legend(
            loc="outside right upper",
            fontsize="small",
            ncols=1 + len(self.layers) // 16,
        )
        return figure


def firing_rates(model: SpikingModel, x: Structure) -> FiringRates:
    """Measures how often the neurons of each layer spike at each time step (figure 5 of
    Yu et al.).

    The model runs in inference mode, and is not changed.

    Example:

    >>> inputs = keras.Input((4,))
    >>> network = keras.Model(inputs, keras_ratesnn.layers.IF(name="neurons")(inputs))
    >>> model = keras_ratesnn.SpikingModel(network, timesteps=4)
    >>> rates = firing_rates(model, np.full((8, 4), 0.5, "float32"))
    >>> rates.layers, rates.by_step.tolist()
    (('neurons',), [[0.0, 1.0, 0.0, 1.0]])

    Args:
        model: A `SpikingModel`.
        x: A batch of inputs, as for `model.predict`. It is processed as one batch.

    Returns:
        `FiringRates`.

    Raises:
        TypeError: If `model` is not a `SpikingModel`.
        ValueError: If `x` does not fit the model or has no samples.

    Source: Yu et al., NeurIPS 2024, figure 5.
    """
    x = _observation.tensors(checked_model(model), x)
    names, by_step, by_neuron = _graph.Names(), [], []
    counts = _observation.steps_that_count(model, x)
    samples, sound = np.maximum(counts.sum(axis=0), 1), np.ones(len(counts), bool)

    def observe(call, outputs):
        if _observation.is_neuron(call):
            spikes = _observation.spikes(call, outputs, model.timesteps)
            # Neurons are silent where their currents are NaN, and so may be those after
            # them.
            for signal in call.signals:
                finite = np.isfinite(_observation.array(signal.value))
                sound[:] &= finite.reshape(len(sound), -1).all(axis=1)
            # NaN for unsound samples; an array of float64, so that sums are, too.
            unknown = np.where(sound, 0.0, np.nan)
            spikes = spikes + unknown.reshape(-1, *[1] * (spikes.ndim - 1))
            names.add(call.operation.name)
            # Neurons do not spike in padding.
            spikes_by_step = spikes.sum(axis=0).reshape(model.timesteps, -1)
            by_step.append(spikes_by_step.mean(axis=1) / samples)
            by_neuron.append(spikes.sum(axis=(0, 1)) / counts.sum())
        return outputs

    _observation.observed(model, x, observe)
    return FiringRates(
        model.timesteps, tuple(names.all), np.stack(by_step), tuple(by_neuron)
    )
