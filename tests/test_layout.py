"""PyTorch: Keras' layers on channels_last data run on the data as they lie in memory, and give what they always give."""

import keras
import numpy as np
import pytest
from helpers import BACKEND, compiled, data, loss_and_gradients, spiking, to_numpy
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn import backend

torch_only = pytest.mark.skipif(BACKEND != "torch", reason="other backends compile, and choose the order by themselves")


def copies_in(function):
    """The shapes of all tensors that `function()` copies into another order."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    shapes = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            if operation is torch.ops.aten.clone.default:
                shapes.append(tuple(args[0].shape))
            return operation(*args, **(kwargs or {}))

    with Watch():
        function()
    return shapes


def network(*after):
    inputs = keras.Input((8, 8, 2))
    x = rsnn.layers.LIF()(layers.Conv2D(3, 3, padding="same")(inputs))
    for layer in after:
        x = layer(x)
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(rsnn.layers.LIF()(x))))


@torch_only
@pytest.mark.parametrize("step_mode", ["multi", "single"])
@pytest.mark.parametrize("gradient", ["rate", "bptt"])
def test_no_image_is_copied_and_a_kernel_once_for_all_steps(gradient, step_mode):
    timesteps = 4
    model = spiking(network(layers.Conv2D(5, 3, use_bias=False)), timesteps, gradient, step_mode=step_mode)
    x, y = data(2, (8, 8, 2))
    model(x, training=True)
    copies = [shape for shape in copies_in(lambda: loss_and_gradients(model, x, y)) if len(shape) == 4]
    # The rate pass needs a kernel with gradient, and the steps one without.
    assert copies.count((5, 3, 3, 3)) == (2 if gradient == "rate" else 1)
    assert not [shape for shape in copies if shape[0] in (2, 2 * timesteps)]


@torch_only
def test_a_kernel_that_changes_inside_a_walk_is_read_anew():
    kernel = keras.Variable(np.arange(36.0).reshape(3, 3, 2, 2)).value
    with backend.layout_kept(), backend.no_gradient():
        for _ in range(2):
            view = kernel.permute(3, 2, 0, 1)
            np.testing.assert_array_equal(to_numpy(view.contiguous()), to_numpy(view))
            kernel.add_(1.0)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.Conv2D(5, 3, padding="same", strides=2),
        lambda: layers.Conv2D(6, (3, 1), dilation_rate=(2, 1), groups=3),
        lambda: layers.DepthwiseConv2D(3),
        lambda: layers.SeparableConv2D(4, 3, padding="same"),
        lambda: layers.AveragePooling2D(2),
        lambda: layers.AveragePooling2D(3, strides=2, padding="same"),
        lambda: layers.MaxPooling2D(3, strides=2, padding="same"),
    ],
)
def test_a_layer_on_images_gives_in_a_network_what_it_gives_by_itself(layer):
    inputs = keras.Input((7, 9, 3))
    layer = layer()
    # The threshold is out of reach: what comes out is the layer's output on the image, through the walk.
    outputs = layers.Add()([layer(inputs), rsnn.layers.LIF(threshold=1e9)(layer(inputs))])
    model = compiled(spiking(keras.Model(inputs, outputs), 3))
    x = np.random.default_rng(0).normal(size=(2, 3, 7, 9, 3)).astype("float32")
    expected = np.mean([to_numpy(layer(ops.convert_to_tensor(x[:, t]))) for t in range(3)], axis=0)
    np.testing.assert_allclose(to_numpy(model(x, training=True)), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, rtol=1e-4, atol=1e-5)
