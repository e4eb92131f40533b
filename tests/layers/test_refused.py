"""What layers refuse: arguments and networks that do not fit, with an error that says
what to do."""

import keras
import numpy as np
import pytest
from helpers import chain, compiled, data, spiking
from keras import layers

import keras_ratesnn as rsnn
from keras_ratesnn.layers import (
    IF,
    ILIF,
    LIF,
    Delay,
    LeakyReadout,
    OnlineRenormalization,
    ParametricLIF,
    Recurrent,
    Scale,
    SlidingPSN,
    WSDense,
)
from keras_ratesnn.layers import TemporalEffectiveBatchNormalization as TEBN
from keras_ratesnn.layers import ThresholdDependentBatchNormalization as TDBN
from keras_ratesnn.surrogates import Sigmoid

T = 5
DENSE = layers.Dense(3)


def built(**arguments):
    layer = LIF(**arguments)
    layer(np.zeros((1, 3), "float32"))
    return layer


def of_thresholds(thresholds):
    size = len(thresholds)
    neuron = LIF(threshold=thresholds, name="lif")
    return chain(layers.Dense(size), neuron, layers.Dense(2))


def fit(callback):
    x, y = data()
    compiled(spiking()).fit(x, y, callbacks=[callback], verbose=0)


def fixed(value):
    return keras.Variable(value, trainable=False)


# What is made, and the error and message that are expected.
ERRORS = [
    (
        lambda: LIF(threshold=0.5, initial_membrane=0.5),
        ValueError,
        r"`initial_membrane` must be < 0\.5\. Received: initial_membrane=0\.5\. "
        "At its threshold",
    ),
    (
        lambda: ParametricLIF(per_channel=True, axis=4)(keras.Input((3,))),
        ValueError,
        r"`axis` must be an input axis of known size\. Received: axis=4",
    ),
    (
        lambda: LIF(decay=["a"]),
        TypeError,
        "`decay` must be a real number, an array of real numbers or a Keras",
    ),
    (
        lambda: built(decay=keras.initializers.Constant(1.5)),
        ValueError,
        "`decay` must be >= 0 and < 1",
    ),
    (
        lambda: LIF(threshold=[1.0, 2.0], reset="hard", v_reset=[0.0, 2.5]),
        ValueError,
        "`v_reset` must be < 2",
    ),
    (
        lambda: built(decay=[0.1, 0.2]),
        ValueError,
        "`decay` must have a value for each of the 3 channels",
    ),
    (
        lambda: built(decay=np.full((2, 3), 0.5)),
        ValueError,
        "`decay` must be an array that broadcasts to a sample",
    ),
    (
        lambda: LIF(decay=[]),
        ValueError,
        r"`decay` must have values\. Received: an array of shape \(0,\)",
    ),
    (
        lambda: LIF(threshold=[1.0, 2.0], reset="hard", v_reset=[0, 0.5, 1.5]),
        ValueError,
        r"`v_reset` must be < 1\.0\. Received: v_reset=1\.5",
    ),
    (
        lambda: built(learn_decay=True).set_decay(keras.initializers.Constant(0.5)),
        TypeError,
        "`decay` must be a real number or an array of real numbers. Received",
    ),
    (
        lambda: built(learn_decay=True).set_decay([0.1, 0.2]),
        ValueError,
        r"an array like the present value, of shape \(\)\. .* of shape \(2,\)",
    ),
    (
        lambda: built().set_decay(0.5),
        AttributeError,
        "`decay` of LIFCell 'cell' is fixed when it is created",
    ),
    (
        lambda: SlidingPSN(2, threshold=[1.0, 2.0]),
        TypeError,
        "`threshold` must be a real number",
    ),
    (
        lambda: LIF(threshold=[1.0, 2.0], threshold_stabilizer=True),
        ValueError,
        "`threshold_stabilizer=True` sets one threshold for all neurons",
    ),
    (
        lambda: rsnn.deploy.to_integers(
            rsnn.deploy.quantize_aware(spiking(of_thresholds([0.5, 1.0, 1.5]), 4))
        ),
        ValueError,
        "layer 'lif' of type LIF: its neurons have a threshold each, and integers one "
        "for a layer",
    ),
    (
        lambda: rsnn.spikify(
            chain(
                layers.Dense(3, "relu", kernel_initializer="ones", name="hidden"),
                layers.Dense(2),
            ),
            timesteps=4,
            neuron=lambda: IF([1.0, 2.0, 3.0]),
            calibrate=np.ones((4, 6), "float32"),
            verbose=False,
        ),
        ValueError,
        "needs one threshold. Received: neurons 'hidden_neuron' with a threshold each",
    ),
    (
        lambda: Recurrent(LIF(), layers.Dense(3))(keras.Input((4,))),
        ValueError,
        r"shape of the neurons, \(4,\).*returns \(3,\)",
    ),
    (
        lambda: Recurrent(LIF(), layers.Dense(3, activation="relu")),
        ValueError,
        "`synapse` must be a layer that is affine",
    ),
    (lambda: Recurrent(DENSE, DENSE), TypeError, "`neuron` must be a neuron layer"),
    (
        lambda: Recurrent(SlidingPSN(2), DENSE),
        ValueError,
        "whose neurons are parallel",
    ),
    (
        lambda: Recurrent(Recurrent(LIF(), DENSE), DENSE),
        ValueError,
        "already recurrent",
    ),
    (
        lambda: Recurrent(LIF(threshold_stabilizer=True), DENSE),
        ValueError,
        "threshold_stabilizer",
    ),
    (
        lambda: spiking(chain(Recurrent(LIF(), layers.Dense(6))), T, "ottt"),
        ValueError,
        "ottt",
    ),
    (
        lambda: Scale(per_channel=True).build((None, None)),
        ValueError,
        "`axis` must be an axis of known size.* Received: axis=-1",
    ),
    (
        lambda: WSDense(4).build((None, 1)),
        ValueError,
        r"at least two weights for each output.*\(1, 4\)",
    ),
    (
        lambda: WSDense(4, dtype="int8_from_float32"),
        ValueError,
        "`dtype` must not be a quantized policy.*int8_from_float32",
    ),
    (
        lambda: chain(WSDense(4)).layers[-1].quantize("int8"),
        NotImplementedError,
        "WSDense",
    ),
    (lambda: OnlineRenormalization(renorm=True), ValueError, "`renorm` must be F"),
    (
        lambda: spiking(chain(LIF(threshold_stabilizer=True))),
        ValueError,
        'threshold_stabilizer=True.*Train with gradient="sltt"',
    ),
    (
        lambda: LIF(threshold_stabilizer=True, learn_threshold=True),
        ValueError,
        "Received: learn_threshold=True",
    ),
    (
        lambda: Delay(4),
        ValueError,
        "`max_delay` must be an odd number of 3 or more.*max_delay=4",
    ),
    (
        lambda: Delay(5)(keras.Input((None,))),
        ValueError,
        "whose number of channels is unknown",
    ),
    (
        lambda: fit(rsnn.callbacks.LowerSigma(2)),
        ValueError,
        "LowerSigma needs a model with Delay layers",
    ),
    (
        lambda: fit(rsnn.callbacks.RaiseMask(2)),
        ValueError,
        "RaiseMask needs a model with MaskedPSN layers",
    ),
    (lambda: TEBN(T, renorm=True), ValueError, "`renorm` must be False"),
    (
        lambda: TDBN(scale=False),
        ValueError,
        "`scale` must be True.*Received: scale=False",
    ),
    (
        lambda: TDBN(gamma_initializer="ones"),
        TypeError,
        r"`gamma_initializer` is alpha \* threshold",
    ),
    (
        lambda: ILIF(initial_membrane=0.6),
        ValueError,
        "`initial_membrane` must be <= 0.5",
    ),
    (
        lambda: ILIF(reset="hard"),
        TypeError,
        "ILIF has no argument `reset`. Received: reset='hard'. Neurons of integer "
        "spikes",
    ),
    (
        lambda: ILIF(surrogate="atan"),
        TypeError,
        "ILIF has no argument `surrogate`. Received: surrogate='atan'. The derivative",
    ),
    (
        lambda: ILIF(learn_threshold=True),
        TypeError,
        "ILIF has no argument `learn_threshold`. .* BatchNormalization",
    ),
    (
        lambda: LeakyReadout(decay=1.0, decay_input=True),
        ValueError,
        "leaves nothing of it",
    ),
    (
        lambda: LeakyReadout(threshold=1.0),
        TypeError,
        "no argument `threshold`: its membranes never spike. Received: threshold=1.0",
    ),
    (lambda: LeakyReadout(tau=2.0), TypeError, "decay=0.5"),
    # Variables as numbers of surrogates.
    (lambda: Sigmoid(keras.Variable(4.0)), ValueError, "not trained.*Received: alpha="),
    (lambda: Sigmoid(fixed([4.0])), ValueError, "one number"),
    (lambda: Sigmoid(fixed(-1.0)), ValueError, "`alpha` must be > 0.*alpha=-1.0"),
]


@pytest.mark.parametrize(("make", "error", "message"), ERRORS)
def test_what_does_not_fit_is_an_error_that_says_what_to_do(make, error, message):
    with pytest.raises(error, match=message):
        make()
