"""Made `last_0_1_0.keras` and `last_0_1_0.npz`, by the last commit of version 0.1.0.

Run in the root of a checkout of `5d27bcc1^`, with Keras 3.15.1 and PyTorch:
`PYTHONPATH=. KERAS_BACKEND=torch python .../tests/saved/make_last_0_1_0.py FOLDER`.
"""

import pathlib
import sys

import keras
import numpy as np

import keras_ratesnn as rsnn

assert rsnn.__version__ == "0.1.0"
keras.utils.set_random_seed(0)
network = keras.Sequential(
    [
        keras.Input((6, 6, 2)),
        rsnn.layers.WSConv2D(3, 3, padding="same"),
        rsnn.layers.TemporalEffectiveBatchNormalization(timesteps=4),
        rsnn.layers.ALIF(decay=0.5),
        keras.layers.Flatten(),
        rsnn.layers.WSDense(8),
        rsnn.layers.ThresholdDependentBatchNormalization(),
        rsnn.layers.CuBaLIF(),
        keras.layers.Dense(8),
        rsnn.layers.OnlineRenormalization(),
        rsnn.layers.ParametricLIF(surrogate="atan"),
        keras.layers.Dense(4),
    ]
)
model = rsnn.SpikingModel(network, timesteps=4, gradient="bptt", step_mode="multi")
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(keras.optimizers.Adam(0.01), loss)
inputs = np.random.default_rng(0).uniform(0, 4, (5, 6, 6, 2)).astype("float32")
for _ in range(8):
    model.train_on_batch(inputs, np.arange(5) % 4)
folder = pathlib.Path(sys.argv[1])
model.save(folder / "last_0_1_0.keras")
outputs = model.predict(inputs, verbose=0)
np.savez_compressed(folder / "last_0_1_0.npz", x=inputs, outputs=outputs)
print(outputs)
