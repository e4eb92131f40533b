"""Small networks of everything that integers compute, drawn from a seed."""

import functools

import keras
import numpy as np
from keras import layers
from library_neurons import ARGUMENTS, cell_class, layer_class, taken

import keras_ratesnn as rsnn
from keras_ratesnn.layers import LIF, TimeMean

T = 3
SHAPE = (5, 6, 2)
INTEGERS = [name for name in ARGUMENTS if cell_class(name).targets.integers]

integers = functools.partial(rsnn.deploy.to_integers, verbose=False)


def draw(seed, exact=False):
    """A model with a few blocks.

    Args:
        seed: Integer.
        exact: Boolean, whether all of its numbers are such that its floats are exact:
            binary fractions of few bits, kernels that 8 bits hold. Defaults to `False`.
    """
    random = np.random.default_rng(seed)
    draws = Drawn(random, exact)
    x = inputs = keras.Input((SHAPE[2], *SHAPE[:2]) if draws.first else SHAPE)
    x = layers.Rescaling(2.0**-8, float(random.choice([0.0, -0.5])))(x)
    x = draws.neurons(draws.normalized(draws.convolution(x)))
    for _ in range(int(random.integers(1, 4))):
        x = getattr(draws, str(random.choice(BLOCKS)))(x)
    x = draws.end(x)
    step_mode = str(random.choice(["multi", "single"]))
    model = rsnn.SpikingModel(keras.Model(inputs, x), T, step_mode=step_mode)
    draws.fill(model)
    return model


def sums():
    """A model with the kernels of training, whose neurons add currents of very unlike
    units: pixels, spikes, and of both."""
    random, x = np.random.default_rng(0), keras.Input((600,))

    def weighted(x, size):
        kernel = random.normal(size / 20, size, (x.shape[-1], 4))
        # One channel has a single weight.
        kernel[:, 0] = 3.0 * (kernel[:, 0] == kernel[:, 0].max())
        layer = layers.Dense(4, use_bias=False)
        outputs = layer(x)
        layer.kernel.assign(kernel)
        return outputs

    pixels, scaled = layers.Rescaling(1 / 255)(x), layers.BatchNormalization()
    spikes = LIF(0.2, 0.4)(weighted(pixels, 0.02))
    added = layers.Add()(
        [spikes, weighted(pixels, 0.02), scaled(weighted(spikes, 0.3))]
    )
    scaled.gamma.assign([-0.1, 0.1, -1.0, 1.0])
    network = keras.Model(x, layers.Dense(3)(LIF(0.2, 0.4, name="of_sums")(added)))
    return rsnn.deploy.quantize_aware(
        rsnn.SpikingModel(network, timesteps=T), weights="int8"
    )


SEEDS = (2, 5, 6, 9, 20, 27)
"""Seeds that together draw everything."""

BLOCKS = (
    "pooled",
    "largest",
    "current",
    "sew",
    "residual",
    "depthwise",
    "dilated",
    "tokens",
)


class Drawn:
    def __init__(self, random, exact):
        self.random, self.exact = random, exact
        self.first = keras.config.image_data_format() == "channels_first"

    def one_of(self, *values):
        return values[int(self.random.integers(len(values)))]

    def convolution(self, x, channels=None, **kwargs):
        kwargs = {
            "padding": self.one_of(
                "same", "valid" if min(self.size(x)) > 3 else "same"
            ),
            **kwargs,
        }
        return layers.Conv2D(
            channels or 4,
            self.one_of(1, 2, 3),
            use_bias=self.one_of(True, False),
            **kwargs,
        )(x)

    def size(self, x):
        return x.shape[2:] if self.first else x.shape[1:3]

    def channels(self, x):
        return x.shape[1] if self.first else x.shape[-1]

    def normalized(self, x):
        axis = 1 if self.first and len(x.shape) == 4 else -1
        return (
            layers.BatchNormalization(axis, epsilon=0.25)(x)
            if self.one_of(True, True, False)
            else x
        )

    def neurons(self, x):
        decay = self.one_of(0.5, 0.0) if self.exact else 0.3
        reset = self.one_of(
            {},
            {"reset": "hard", "v_reset": -0.25},
            {"reset": "hard", "reset_delay": True},
            {"reset_delay": True},
        )
        common = {
            "initial_membrane": self.one_of(0.0, 0.25),
            "threshold": self.one_of(0.5, 0.75),
            **reset,
        }
        name = self.one_of(*INTEGERS)
        if name == "ILIF":
            common = {
                "levels": self.one_of(1, 2, 4),
                "decay": self.one_of(decay, 1.0),
                "threshold": 0.5,
                "normalize": self.one_of(True, False),
            }
        else:
            common = {
                "decay": decay or 0.5 if name == "ParametricLIF" else decay,
                "decay_input": self.one_of(True, False),
                "axis": 1 if self.first and len(x.shape) == 4 else -1,
                "per_channel": self.one_of(True, False),
                **common,
            }
        return layer_class(name)(**taken(name, common))(x)

    def pooled(self, x):
        x = layers.AveragePooling2D(2, padding="same")(x)
        return self.neurons(
            self.normalized(
                self.convolution(layers.Rescaling(2.0)(x), strides=self.one_of(1, 2))
            )
        )

    def largest(self, x):
        return self.neurons(
            self.convolution(
                layers.MaxPooling2D(2, strides=self.one_of(1, 2), padding="same")(x),
                groups=2,
            )
        )

    def current(self, x):
        return self.neurons(
            layers.MaxPooling2D(2, padding="same")(self.normalized(self.convolution(x)))
        )

    def sew(self, x):
        y = self.neurons(
            self.normalized(self.convolution(x, self.channels(x), padding="same"))
        )
        return layers.Dropout(0.5)(layers.Add()([x, y]))

    def residual(self, x):
        x = layers.ZeroPadding2D(1)(x) if self.one_of(True, False) else x
        one = self.normalized(layers.Conv2D(4, 3, padding="same", use_bias=False)(x))
        other = (
            self.normalized(layers.Conv2D(4, 1, use_bias=False)(x))
            if self.channels(x) != 4 or self.one_of(True, False)
            else x
        )
        if other is x and isinstance(x._keras_history.operation, layers.ZeroPadding2D):
            other = layers.Conv2D(4, 1)(x)
        return self.neurons(one + other)

    def depthwise(self, x):
        return self.neurons(
            self.normalized(
                layers.DepthwiseConv2D(
                    2, padding="same", depth_multiplier=self.one_of(1, 2)
                )(x)
            )
        )

    def dilated(self, x):
        return self.neurons(self.convolution(x, padding="same", dilation_rate=2))

    def tokens(self, x):
        return self.neurons(
            layers.Conv2D(4, 1)(x) if self.first else layers.Dense(4)(x)
        )

    def end(self, x):
        if self.exact:
            x = layers.Flatten()(x)
        elif self.one_of(True, False):
            x = layers.GlobalAveragePooling2D(keepdims=True)(x)
            x = layers.Reshape((-1,))(x)
        else:
            x = self.one_of(
                layers.GlobalAveragePooling2D(),
                layers.GlobalMaxPooling2D(),
                layers.Flatten(),
            )(x)
        if self.one_of(True, False):
            x = self.neurons(self.normalized(layers.Dense(6)(x)))
        end = self.one_of("currents", "means", "spikes")
        x = TimeMean()(x) if end == "means" else x
        x = layers.Dense(3)(x)
        return self.neurons(x) if end == "spikes" else x

    def fill(self, model):
        for layer in model.network.layers:
            if isinstance(layer, layers.BatchNormalization):
                size = layer.gamma.shape
                layer.gamma.assign(
                    self.random.choice([-1.0, -0.5, 0.5, 1.0, 2.0], size)
                )
                layer.beta.assign(self.random.choice([-0.25, 0.0, 0.25], size))
                layer.moving_mean.assign(self.random.choice([-0.125, 0.0, 0.125], size))
                layer.moving_variance.assign(np.full(size, 0.75))
            elif hasattr(layer, "kernel"):
                layer.kernel.assign(
                    self.kernel(
                        layer.kernel.shape, isinstance(layer, layers.DepthwiseConv2D)
                    )
                )
                if layer.use_bias:
                    layer.bias.assign(
                        self.random.integers(-8, 9, layer.bias.shape) / 64
                    )

    def kernel(self, shape, depthwise):
        if not self.exact:
            return self.random.normal(0.1, 1.0, shape) / np.sqrt(
                np.prod(shape[:2] if depthwise else shape[:-1])
            )
        integers = self.random.integers(-100, 128, shape)
        # The largest is 127, so that scales are powers of 2.
        integers[(0,) * (len(shape) - (2 if depthwise else 1))] = 127
        return integers / 2.0**8
