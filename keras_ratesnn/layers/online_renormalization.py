"""Batch normalisation for online training: by statistics of the batches before."""

from typing import Any

import keras

from keras_ratesnn._core import normalization, registry
from keras_ratesnn._core.annotations import Tensor
from keras_ratesnn.layer_kinds import LayerKind, Normalization


@registry.register
class OnlineRenormalization(keras.layers.BatchNormalization):
    """OSR: a `keras.layers.BatchNormalization` that uses its running statistics in training, too.

    An online method sees one time step after the other, and the statistics of all steps only when they are over. So a step is
    normalised by the running mean and variance, as in inference, and differentiated as by those of its own batch: batch
    renormalisation, x̂ = (x − μ_B) / σ_B · r + d, with r = σ_B / σ_run and d = (μ_B − μ_run) / σ_run held constant. Where r
    leaves [1/20, 20], the batch's own statistics serve. After the last step the statistics of all steps move the running ones.

    Its authors train it by `gradient="sltt"` with `step_mode="single"`. It works with every method, and in both orders.

    Example:

    >>> layer = OnlineRenormalization(epsilon=1e-5)
    >>> outputs = layer(np.full((4, 2), 3.0), training=True)  # The running mean is 0 still, and its variance 1; σ_B is 0.
    >>> print(ops.convert_to_numpy(layer.moving_mean).round(1))
    [0.3 0.3]

    Args:
        momentum: Float, the part of the running statistics that is kept after a batch. Defaults to `0.9`.
        **kwargs: As in `keras.layers.BatchNormalization`, without `renorm`.

    Raises:
        ValueError: If `renorm=True`.

    Source: Zhu et al., "Online Stabilization of Spiking Neural Networks", ICLR 2024.
    """

    layer_kind = LayerKind(
        affine=True,
        normalization=Normalization(
            normalization.normalize_online, normalization.normalize_rate_online, after_steps=normalization.move_averages
        ),
    )

    def __init__(self, momentum: float = 0.9, **kwargs: Any) -> None:
        super().__init__(momentum=momentum, **kwargs)
        if self.renorm:
            raise ValueError("`renorm` must be False: the layer renormalises in its own way. Received: renorm=True.")

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        if not (training and self.trainable):
            return super().call(inputs, training=False)
        outputs, mean, variance = normalization.normalize_online(self, inputs)
        normalization.move_averages(self, mean, variance)
        return outputs
