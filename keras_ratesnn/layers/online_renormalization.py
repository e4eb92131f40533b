"""Batch normalisation for online training, with statistics of previous batches."""

from typing import Any

import keras

from keras_ratesnn._core import checks, normalization, registry
from keras_ratesnn._core.annotations import Tensor
from keras_ratesnn.layer_kinds import BatchStatistics, LayerKind


@registry.register
class OnlineRenormalization(keras.layers.BatchNormalization):
    """OSR: a `keras.layers.BatchNormalization` that uses its running statistics in
    training, too.

    An online method sees one time step at a time, and knows the statistics of all steps
    only at the end. So each step is normalised with the running mean and variance, as
    in inference, but differentiated with the statistics of its own batch. This is batch
    renormalisation, x̂ = (x − μ_B) / σ_B · r + d, with constants r = σ_B / σ_run and
    d = (μ_B − μ_run) / σ_run. If r is outside [1/20, 20], the batch's own statistics
    are used. After the last step the running statistics are updated with those of all
    steps. As in Keras, rows that a `mask` leaves out count in no statistics.

    The authors train with `gradient="sltt"` and `step_mode="single"`. The layer works
    with every method and both step modes.

    Example:

    >>> layer = OnlineRenormalization(epsilon=1e-5)
    >>> # The running mean is still 0 and its variance 1; σ_B is 0.
    >>> outputs = layer(np.full((4, 2), 3.0), training=True)
    >>> print(ops.convert_to_numpy(layer.moving_mean).round(1))
    [0.3 0.3]

    Args:
        momentum: Float in [0, 1], the momentum of the running statistics. Defaults to
            `0.9`.
        **kwargs: As in `keras.layers.BatchNormalization`, without `renorm`.

    Raises:
        TypeError: If `momentum` is not a number.
        ValueError: If `momentum` is not in [0, 1], or `renorm=True`.

    Source: Zhu et al., "Online Stabilization of Spiking Neural Networks", ICLR 2024.
    """

    layer_kind = LayerKind(
        affine=True,
        normalization=BatchStatistics(
            normalization.normalize_online,
            normalization.normalize_rate_online,
            after_steps=normalization.move_averages,
            scale_and_shift=normalization.scale_and_shift,
        ),
    )

    def __init__(self, momentum: float = 0.9, **kwargs: Any) -> None:
        momentum = checks.real(
            "momentum",
            momentum,
            at_least=0,
            at_most=1,
            advice="The running statistics keep this part of each.",
        )
        super().__init__(momentum=momentum, **kwargs)
        if getattr(self, "renorm", False):
            raise ValueError(
                "`renorm` must be False: the layer has its own renormalisation. "
                "Received: renorm=True."
            )

    def call(
        self, inputs: Tensor, training: bool | None = None, mask: Tensor | None = None
    ) -> Tensor:
        if not (training and self.trainable):
            return super().call(inputs, training=False, mask=mask)
        outputs, mean, variance = normalization.normalize_online(
            self, inputs, mask=mask
        )
        normalization.move_averages(self, mean, variance)
        return outputs
