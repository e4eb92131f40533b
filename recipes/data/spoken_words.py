"""SHD and SSC: spoken words as spikes of 700 channels of the ear, in steps of 10
milliseconds.

Five neighbouring channels are summed to one of 140 inputs, as in the program of
DCLS-delays (Hammouamri et al., ICLR 2024). All sequences have T steps: shorter ones end
with silence, and of longer ones the rest is left out.
"""

import dataclasses

import numpy as np

from keras_ratesnn.events import HeidelbergFile, binned_frames
from keras_ratesnn.events.heidelberg import SENSOR_SHAPE
from recipes.data import stored_frames
from recipes.data.dataset import Dataset, given_folder

INPUTS = 140
STEP = 10_000
"""In microseconds."""

ORDER_SEED = 0


@dataclasses.dataclass(frozen=True)
class SpokenWords:
    """What is known of a data set of spoken words.

    Args:
        name: String, the beginning of the names of its files, such as `shd_train.h5`.
        classes: Integer, the number of classes.
    """

    name: str
    classes: int

    @property
    def advice(self):
        """What the data folder must hold, a sentence."""
        return (
            f"--data-dir is a folder with {self.name}_train.h5 and "
            f"{self.name}_test.h5, unpacked from the .gz files of "
            "https://zenkelab.org/resources/spiking-heidelberg-datasets-shd."
        )

    def load(self, data_dir, timesteps):
        """The data set as spikes summed in steps.

        Args:
            data_dir: The folder. The sums are also stored there.
            timesteps: Integer >= 1, the number of steps T.

        Returns:
            A `Dataset` with images of float32 `(timesteps, 140)`. The order of the
            recordings mixes the classes.

        Raises:
            FileNotFoundError: If the folder or a file is missing.
            NotADirectoryError: If `data_dir` is not a folder.
            OSError: If the folder is not writable.
            TypeError: If `timesteps` is not an integer.
            ValueError: If no folder was given, `timesteps` is invalid, or a file is
                damaged or another.
        """
        folder, timesteps = given_folder(
            data_dir, self.name.upper(), "Unpack its files.", self.advice, timesteps
        )
        (train, train_labels), (test, test_labels) = (
            self._part(folder / f"{self.name}_{part}.h5", timesteps)
            for part in ("train", "test")
        )
        return Dataset(train, train_labels, test, test_labels)

    def _part(self, path, timesteps):
        if not path.is_file():
            raise FileNotFoundError(f"There is no {path}. {self.advice}")
        with stored_frames.read(HeidelbergFile, path) as recordings:
            labels = recordings.labels.astype("int32")
            if labels.max() >= self.classes:
                raise ValueError(
                    f"{path} must have {self.classes} classes. It has the label "
                    f"{labels.max()}. {self.advice}"
                )
            order = np.random.default_rng(ORDER_SEED).permutation(len(recordings))
            stored_in, shape = (
                path.with_name(f"{path.stem}_{timesteps}_steps.npy"),
                (len(order), timesteps, INPUTS),
            )
            each = (_steps_of(recordings[int(row)], timesteps) for row in order)
            frames = stored_frames.stored(stored_in, [path], shape, each)
        return frames, labels[order]


def _steps_of(events, timesteps):
    return binned_frames(events, timesteps, STEP, SENSOR_SHAPE, (1, INPUTS))[:, 0, :, 1]


SHD = SpokenWords("shd", 20)
"""Spiking Heidelberg Digits: the digits in English and German."""

SSC = SpokenWords("ssc", 35)
"""Spiking Speech Commands."""
