"""Recordings of event cameras and of spoken words, and their conversion to the frames that a network sees."""

from keras_ratesnn.events.aedat import read_aedat, write_aedat
from keras_ratesnn.events.aedat3 import read_aedat3
from keras_ratesnn.events.bins import binned_frames
from keras_ratesnn.events.boxes import read_boxes
from keras_ratesnn.events.drop import event_drop
from keras_ratesnn.events.frames import event_frames
from keras_ratesnn.events.gestures import read_gestures
from keras_ratesnn.events.heidelberg import HeidelbergFile
from keras_ratesnn.events.moves import flip, roll
from keras_ratesnn.events.nmnist import read_nmnist
from keras_ratesnn.events.prophesee import read_prophesee
from keras_ratesnn.events.recording import Events, read_arrays
from keras_ratesnn.events.structured import from_structured, to_structured
from keras_ratesnn.events.surfaces import time_surfaces
from keras_ratesnn.events.voxels import voxel_grid

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
