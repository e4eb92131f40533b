"""Loads a saved model on the backend selected by KERAS_BACKEND, predicts and trains it;
run by `test_persistence.py`.

python other_backend.py model.keras data.npz results.npz
"""

import os
import sys

import numpy as np
from keras_alone import imported_alone

STEPS = 3


def predict_and_train(model, x, y):
    """Predictions, and the losses of a few steps of training."""
    predictions = model.predict(x, verbose=0)
    losses = [
        float(np.asarray(model.train_on_batch(x, y)).ravel()[0]) for _ in range(STEPS)
    ]
    return {"predictions": predictions, "losses": np.array(losses)}


if __name__ == "__main__":
    keras = imported_alone(os.environ["KERAS_BACKEND"])
    import keras_ratesnn  # noqa: F401  (registers what a saved model is made of)

    model_file, data_file, results_file = sys.argv[1:]
    arrays = np.load(data_file)
    results = predict_and_train(
        keras.saving.load_model(model_file), arrays["x"], arrays["y"]
    )
    np.savez(results_file, backend=keras.backend.backend(), **results)
