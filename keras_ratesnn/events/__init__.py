"""Recordings of event cameras, and their conversion to the frames that a network sees."""

from keras_ratesnn.events.aedat import read_aedat, write_aedat
from keras_ratesnn.events.frames import event_frames
from keras_ratesnn.events.recording import Events, read_arrays

__all__ = ["Events", "event_frames", "read_aedat", "read_arrays", "write_aedat"]
