"""Recordings of event cameras and of spoken words, and their conversion to the frames
that a network sees."""

from keras_ratesnn.events.aedat import read_aedat, write_aedat
from keras_ratesnn.events.aedat3 import read_aedat3
from keras_ratesnn.events.augmentations import event_drop, flip, roll
from keras_ratesnn.events.boxes import read_boxes
from keras_ratesnn.events.frames import (
    binned_frames,
    event_frames,
    time_surfaces,
    voxel_grid,
)
from keras_ratesnn.events.gestures import read_gestures
from keras_ratesnn.events.heidelberg import HeidelbergFile
from keras_ratesnn.events.nmnist import read_nmnist
from keras_ratesnn.events.prophesee import read_prophesee
from keras_ratesnn.events.recording import (
    Events,
    from_structured,
    read_arrays,
    to_structured,
)

__all__ = [
    "Events",
    "HeidelbergFile",
    "binned_frames",
    "event_drop",
    "event_frames",
    "flip",
    "from_structured",
    "read_aedat",
    "read_aedat3",
    "read_arrays",
    "read_boxes",
    "read_gestures",
    "read_nmnist",
    "read_prophesee",
    "roll",
    "time_surfaces",
    "to_structured",
    "voxel_grid",
    "write_aedat",
]
