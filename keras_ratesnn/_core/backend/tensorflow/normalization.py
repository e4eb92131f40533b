"""Batch normalisation with TensorFlow's own kernels: a few passes over memory, instead
of a dozen with plain operations.

For processors without XLA, which fuses plain operations itself.
"""

import tensorflow as tf

from keras_ratesnn._core.backend.tensorflow.replicas import replicas
from keras_ratesnn._core.backend.tensorflow.xla_context import compiled_by_xla

DTYPES = tf.float32, tf.float16, tf.bfloat16


def has_kernels(inputs, axis, parameters, weights):
    """Whether `normalize` and `normalize_as` take these arguments, see
    `plain_normalization`."""
    return (
        weights is None
        and inputs.dtype in DTYPES
        and axis % len(inputs.shape) == len(inputs.shape) - 1
        and all(
            parameter is None or len(parameter.shape) == 1 for parameter in parameters
        )
        and replicas.count() == 1
        and not compiled_by_xla()
        # The kernel of the gradient there is given not the variance, but the inverse of
        # its root.
        and not tf.config.list_logical_devices("GPU")
    )


def normalize(inputs, gamma, beta, epsilon):
    """Normalises a batch with its own statistics over all axes but the last; see
    `plain_normalization`."""
    images = _as_images(inputs)
    scale, offset = _both(inputs, gamma, beta)
    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=images,
        scale=scale,
        offset=offset,
        mean=[],
        variance=[],
        epsilon=epsilon,
        is_training=True,
    )
    # The kernel divides by one less than the number of elements.
    size = tf.cast(tf.size(images) // inputs.shape[-1], variance.dtype)
    statistics = (
        tf.stop_gradient(mean),
        tf.stop_gradient(variance * ((size - 1.0) / size)),
    )
    return tf.reshape(outputs, tf.shape(inputs)), *statistics


def normalize_as(plain, inputs, gamma, beta, mean, variance, epsilon):
    """Normalises with given statistics, differentiated as if they were those of the
    batch; see `plain_normalization`.

    `plain` does the same with plain operations. The kernel has no second derivative but
    for the statistics of the batch.
    """

    @tf.custom_gradient
    def normalized(images, scale, offset):
        outputs, *_ = tf.raw_ops.FusedBatchNormV3(
            x=images,
            scale=scale,
            offset=offset,
            mean=mean,
            variance=variance,
            epsilon=epsilon,
            is_training=False,
        )
        return outputs, lambda upstream: gradients(upstream, images, scale, offset)

    @tf.custom_gradient
    def gradients(upstream, *inputs):
        images, scale, _ = inputs
        image_gradient, scale_gradient, offset_gradient, *_ = (
            tf.raw_ops.FusedBatchNormGradV3(
                y_backprop=upstream,
                x=images,
                scale=scale,
                reserve_space_1=mean,
                reserve_space_2=variance,
                reserve_space_3=[],
                epsilon=epsilon,
            )
        )
        # The kernel assumes that `mean` is the mean of the inputs.
        own_mean = tf.reduce_mean(tf.cast(images, mean.dtype), [0, 1, 2])
        size = tf.cast(tf.size(images) // images.shape[-1], scale.dtype)
        factor = (own_mean - mean) / (variance + epsilon) * scale / size

        def second(*upstreams):
            with tf.GradientTape() as outer:
                outer.watch([upstream, *inputs])
                with tf.GradientTape() as inner:
                    inner.watch(inputs)
                    outputs = plain(images, -1, *inputs[1:], mean, variance, epsilon)
                first = inner.gradient(outputs, inputs, upstream)
            return outer.gradient(
                first, [upstream, *inputs], upstreams, tf.UnconnectedGradients.ZERO
            )

        return (
            image_gradient + tf.cast(factor * scale_gradient, images.dtype),
            scale_gradient,
            offset_gradient,
        ), second

    return tf.reshape(
        normalized(_as_images(inputs), *_both(inputs, gamma, beta)), tf.shape(inputs)
    )


def _both(inputs, gamma, beta):
    channels = inputs.shape[-1:]
    gamma = tf.ones(channels) if gamma is None else gamma
    beta = tf.zeros(channels) if beta is None else beta
    # They may be variables, whose gradients a custom gradient treats otherwise.
    return tf.convert_to_tensor(gamma), tf.convert_to_tensor(beta)


def _as_images(inputs):
    """`(rows, 1, 1, channels)`, or images as they are."""
    return (
        inputs
        if len(inputs.shape) == 4
        else tf.reshape(inputs, (-1, 1, 1, inputs.shape[-1]))
    )
