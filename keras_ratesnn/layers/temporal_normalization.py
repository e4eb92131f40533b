"""Batch normalisation that depends on thresholds or on the time step."""

import dataclasses
from typing import Any

import keras

from keras_ratesnn._core import checks, registry, time_axis
from keras_ratesnn._core.annotations import Config, Shape, Tensor
from keras_ratesnn._core.configs import ConfigOfAttributes
from keras_ratesnn.layer_kinds import LayerKind, kind_of_class


@registry.register
class ThresholdDependentBatchNormalization(keras.layers.BatchNormalization):
    """tdBN: a `keras.layers.BatchNormalization` whose scale γ starts at α · θ, so that
    currents match the threshold.

    As for every batch normalisation in a `SpikingModel`, statistics are over time,
    batch and space with `step_mode="multi"`, as in the original tdBN; with `"single"`
    each step has separate statistics, over batch and space.

    Example:

    >>> layer = ThresholdDependentBatchNormalization(
    ...     threshold=0.5, momentum=0.9, epsilon=1e-5
    ... )
    >>> layer.build((None, 2))
    >>> print(ops.convert_to_numpy(layer.gamma))
    [0.5 0.5]

    Args:
        threshold: Float > 0, the threshold θ of the neurons that follow. Defaults to
            `1.0`.
        alpha: Float > 0, α. Where two branches are added before the neurons, the
            authors take 1/√2 in each. Defaults to `1.0`.
        **kwargs: As in `keras.layers.BatchNormalization`, without `gamma_initializer`.

    Raises:
        TypeError: If `threshold` or `alpha` is not a number, or `gamma_initializer` is
            given.
        ValueError: If a number is out of bounds, or `scale=False`, which removes γ.

    Source: Zheng et al., "Going Deeper With Directly-Trained Larger Spiking Neural
    Networks", AAAI 2021.
    """

    def __init__(
        self, threshold: float = 1.0, alpha: float = 1.0, **kwargs: Any
    ) -> None:
        self.threshold = checks.real(
            "threshold",
            threshold,
            above=0,
            advice="It is the threshold of the neurons that follow.",
        )
        self.alpha = checks.real(
            "alpha", alpha, above=0, advice="γ starts at alpha * threshold."
        )
        if "gamma_initializer" in kwargs:
            raise TypeError(
                "`gamma_initializer` is alpha * threshold in a "
                "ThresholdDependentBatchNormalization. Received: "
                f"gamma_initializer={kwargs['gamma_initializer']!r}. Set threshold and "
                "alpha, or use BatchNormalization."
            )
        if not kwargs.get("scale", True):
            raise ValueError(
                "`scale` must be True: γ depends on the threshold. Received: "
                "scale=False. Use BatchNormalization."
            )
        super().__init__(
            gamma_initializer=keras.initializers.Constant(self.alpha * self.threshold),
            **kwargs,
        )

    def get_config(self) -> Config:
        config = super().get_config()
        del config["gamma_initializer"]
        return {**config, "threshold": self.threshold, "alpha": self.alpha}


@registry.register
class TemporalEffectiveBatchNormalization(
    ConfigOfAttributes, keras.layers.BatchNormalization
):
    """TEBN: a `keras.layers.BatchNormalization` whose output is scaled at each time
    step by a trainable factor,

        y_t = p_t (γ x̂_t + β)

    with the statistics of tdBN. In a `SpikingModel` they are over time, batch and space
    with `step_mode="multi"`; with `"single"` each step has separate statistics. All p_t
    start at 1.

    With `gradient="rate"` the derivative is that of the time mean of p_t ẑ, where ẑ is
    the normalised rate: p̄ with respect to the input, and ẑ/T with respect to each p_t.
    One rate for all steps cannot distinguish them, so all p_t change alike. With
    `Rate(windows=W)` the p_t of different windows differ, and with one window per step
    the derivative is BPTT's.

    Outside a `SpikingModel` there are no steps, and the layer is ordinary batch
    normalisation.

    Example:

    >>> inputs = keras.Input((4,))
    >>> layer = TemporalEffectiveBatchNormalization(timesteps=3)
    >>> spikes = keras_ratesnn.layers.LIF()(layer(keras.layers.Dense(8)(inputs)))
    >>> model = keras_ratesnn.SpikingModel(
    ...     keras.Model(inputs, keras.layers.Dense(2)(spikes)), timesteps=3
    ... )
    >>> print(ops.convert_to_numpy(layer.step_factors))
    [1. 1. 1.]

    Args:
        timesteps: Integer >= 1, the number of factors. A `SpikingModel` may run for
            fewer steps, but not for more.
        **kwargs: As in `keras.layers.BatchNormalization`, without `renorm`.

    Raises:
        TypeError: If `timesteps` is not an integer.
        ValueError: If `timesteps` is not >= 1, or `renorm=True`.

    Source: Duan et al., "Temporal Effective Batch Normalization in Spiking Neural
    Networks", NeurIPS 2022.
    """

    layer_kind = LayerKind(
        normalization=dataclasses.replace(
            kind_of_class(keras.layers.BatchNormalization).normalization,  # type: ignore[type-var]  # It is one.
            step_factors=lambda layer: layer.step_factors,
            scale_and_shift=None,
        ),
        most_timesteps=lambda layer: layer.timesteps,
    )
    in_config = ("timesteps",)

    def __init__(self, timesteps: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.timesteps = checks.positive_integer(
            "timesteps", timesteps, advice="It is the number of steps with a factor."
        )
        if getattr(self, "renorm", False):
            raise ValueError(
                "`renorm` must be False: TEBN uses batch statistics. Received: "
                "renorm=True."
            )

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.step_factors = self.add_weight(
            shape=(self.timesteps,),
            initializer="ones",
            name="step_factors",
            autocast=False,
        )

    def call(
        self,
        inputs: Tensor,
        training: bool | None = None,
        mask: Tensor | None = None,
        time_step: int | Tensor | None = None,
    ) -> Tensor:
        outputs = super().call(inputs, training=training, mask=mask)
        if time_step is None:  # While a network is built, and outside a SpikingModel.
            return outputs
        return time_axis.times_rows(
            outputs, time_axis.factors_of_steps(self.step_factors, time_step)
        )
