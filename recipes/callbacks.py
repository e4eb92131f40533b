"""What a run does after every epoch: it measures itself, and saves itself."""

import os
import shutil
import time

import keras

from keras_ratesnn import describe


class EpochMeasures(keras.callbacks.Callback):
    """Adds to the logs of an epoch what Keras does not: seconds, images/s, learning rate and firing rate.

    Callbacks that stand after it, and the progress bar, see what it adds.

    Args:
        train_images: Integer, the number of images in an epoch.
        sample: Array of images, on which the firing rate is measured: the mean over all neurons, steps and images.
    """

    def __init__(self, train_images, sample):
        super().__init__()
        self.train_images = train_images
        self.sample = sample

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.perf_counter()
        self.testing = 0.0

    def on_test_begin(self, logs=None):
        self.test_started = time.perf_counter()

    def on_test_end(self, logs=None):
        self.testing += time.perf_counter() - self.test_started

    def on_epoch_end(self, epoch, logs=None):
        seconds = time.perf_counter() - self.started
        layers = describe(self.model, self.sample, print_fn=None).layers
        spikes = sum(layer.firing_rate * layer.neurons for layer in layers)
        logs["seconds"] = seconds
        logs["images_per_second"] = self.train_images / (seconds - self.testing)
        logs["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        logs["firing_rate"] = spikes / sum(layer.neurons for layer in layers)


class Checkpoint(keras.callbacks.Callback):
    """Saves the model with its optimizer after every epoch, and once more where it is the best so far.

    A file is written under another name and then renamed: whenever the run is killed, the last whole one is there.

    Args:
        last: Path of the file of the last epoch, `.keras`.
        best: Path of the file of the epoch with the highest test accuracy, `.keras`.
        best_accuracy: Float, the highest test accuracy of the epochs before, where a run is resumed. Defaults to `-1.0`.
    """

    def __init__(self, last, best, best_accuracy=-1.0):
        super().__init__()
        self.last = last
        self.best = best
        self.best_accuracy = best_accuracy

    def on_epoch_end(self, epoch, logs=None):
        unfinished = self.last.with_name(f"unfinished-{self.last.name}")
        self.model.save(unfinished)
        accuracy = logs["val_accuracy"]
        if accuracy > self.best_accuracy:
            self.best_accuracy = accuracy
            copy = self.best.with_name(f"unfinished-{self.best.name}")
            shutil.copyfile(unfinished, copy)
            os.replace(copy, self.best)
        os.replace(unfinished, self.last)
