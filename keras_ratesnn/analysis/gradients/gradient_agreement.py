"""How close the gradients of two training methods are, layer by layer."""

import dataclasses
from typing import Any

import numpy as np

from keras_ratesnn import gradients
from keras_ratesnn._core.annotations import Config, Structure
from keras_ratesnn.analysis import _figures, _observation, _text
from keras_ratesnn.analysis.gradients import _training
from keras_ratesnn.gradients import GradientMethod
from keras_ratesnn.spiking_model import SpikingModel


@dataclasses.dataclass(frozen=True, eq=False)
class GradientAgreement:
    """The result of `gradient_agreement`.

    Args:
        method: String, the training method of the model.
        other: String, the method it is compared with.
        timesteps: Integer T.
        layers: Tuple of strings, the layers of the N kernels, from the first to the
            last.
        cosine: Array `(N,)`: the cosine similarity between the two gradients of each
            kernel; NaN where one is zero.
        norms: Array `(N,)`: the norms of the gradients by `method`.
        other_norms: Array `(N,)`: those by `other`.
    """

    method: str
    other: str
    timesteps: int
    layers: tuple[str, ...]
    cosine: np.ndarray
    norms: np.ndarray
    other_norms: np.ndarray

    @property
    def norm_ratio(self) -> np.ndarray:
        """The norm of each gradient by `method`, divided by that by `other`, `(N,)`;
        NaN where the latter is zero."""
        return self.norms / np.where(self.other_norms > 0, self.other_norms, np.nan)

    @property
    def total_norm_ratio(self) -> float:
        """The same ratio for all kernels together."""
        other = float(np.linalg.norm(self.other_norms))
        return float(np.linalg.norm(self.norms)) / other if other else float("nan")

    def plot(self) -> Any:
        """Draws cosine and norm ratio of each layer.

        Returns:
            A `matplotlib.figure.Figure`.

        Raises:
            ImportError: If Matplotlib is not installed.
        """
        figure, axes = _figures.new_figure(_figures.width_for(len(self.layers)), 3.8)
        positions = np.arange(len(self.layers))
        axes.axhline(1, color="0.6", linewidth=1)
        axes.plot(positions, self.cosine, color="black", marker="o", label="cosine")
        axes.plot(
            positions,
            self.norm_ratio,
            color="0.5",
            linestyle="--",
            marker="s",
            label="norm ratio",
        )
        _figures.name_layers(axes, self.layers)
        # An array, since NumPy ignores `initial` for a list of NaN alone.
        values = np.hstack([self.cosine, self.norm_ratio])
        axes.set_ylim(
            np.nanmin(values, initial=0.85) - 0.05,
            np.nanmax(values, initial=1.0) + 0.05,
        )
        axes.set_title(
            f"gradient by {self.method} beside that by {self.other}, T = "
            f"{self.timesteps}",
            fontsize="medium",
        )
        axes.legend(fontsize="small", loc="lower right")
        return figure


def gradient_agreement(
    model: SpikingModel,
    x: Structure,
    y: Any,
    other: str | GradientMethod | Config | None = None,
    loss: Any = None,
) -> GradientAgreement:
    """Compares the gradients of two training methods on a batch (A3, figure 3 of Yu et
    al.).

    Both methods see the same weights, the same random numbers, and batch statistics as
    in training, in the step mode of the model. The model is not changed: neither
    weights nor moving statistics nor seeds.

    Example:

    >>> inputs = keras.Input((4,))
    >>> network = keras.Model(
    ...     inputs, keras.layers.Dense(2)(keras_ratesnn.layers.LIF()(inputs))
    ... )
    >>> model = keras_ratesnn.SpikingModel(network, timesteps=4, gradient="rate")
    >>> found = gradient_agreement(model, np.ones((8, 4)), np.ones((8, 2)), loss="mse")
    >>> # After neurons with constant input both are equal.
    >>> found.cosine.round(3).tolist()
    [1.0]

    Args:
        model: A `SpikingModel`; the first method is its own.
        x: A batch of inputs, as for `model.fit`. It is processed as one batch.
        y: Its labels, as for the loss.
        other: Name or `GradientMethod`, the second method. Defaults to `None`:
            `"bptt"`, or `"rate"` for a model trained by BPTT.
        loss: The loss, as in `compile`. Defaults to `None`, that of the compiled model.

    Returns:
        `GradientAgreement`.

    Raises:
        TypeError: If `model` is not a `SpikingModel`, or `other` is not a method.
        ValueError: If there is no loss, a method is unknown or cannot train the model,
            `other` is the method of the model, `x` and `y` do not have the same number
            of samples, or a label is of no class.

    Source: Yu et al., NeurIPS 2024, figure 3.
    """
    training = _training.Training(model, x, y, loss)
    second = _second_method(model.gradient, other)
    kernels = _training.kernels_of(model)
    by_method = _arrays(training, model.gradient, list(kernels.values()))
    by_second = _arrays(training, second, list(kernels.values()))
    pairs = zip(by_method, by_second, strict=True)
    return GradientAgreement(
        method=_text.name_of(model.gradient),
        other=_text.name_of(second),
        timesteps=model.timesteps,
        layers=tuple(kernels),
        cosine=np.array([_training.cosine(*pair) for pair in pairs]),
        norms=_norms(by_method),
        other_norms=_norms(by_second),
    )


def _second_method(method, other):
    if other is None:
        return gradients.Rate() if type(method) is gradients.BPTT else gradients.BPTT()
    second = gradients.get(other)
    if type(second) is type(method) and second.get_config() == method.get_config():
        raise ValueError(
            "`other` must be another method than that of the model, to which it is "
            f"compared. Received: other={other!r}, for a model with "
            f"gradient={method!r}. Leave it out to compare with BPTT, or BPTT with "
            "rate."
        )
    return second


def _arrays(training, method, kernels):
    method.check_timesteps(training.model.timesteps)
    tensors, _ = training.gradients(method, training.model.step_mode, kernels)
    return [
        np.zeros(kernel.shape)
        if gradient is None
        else _observation.array(gradient).astype("float64")
        for kernel, gradient in zip(kernels, tensors, strict=True)
    ]


def _norms(arrays):
    return np.array([np.linalg.norm(array) for array in arrays])
