"""Histograms for TensorBoard, without TensorFlow."""

import os
import time

from keras_ratesnn._core import checks


class Writer:
    """Writes histograms to a folder.

    Args:
        log_dir: String or path.

    Raises:
        TypeError: If `log_dir` is neither a string nor a path.
        ImportError: If TensorBoard is not installed.
    """

    def __init__(self, log_dir: str | os.PathLike[str]) -> None:
        self._log_dir = checks.path("log_dir", log_dir)
        try:
            from tensorboard.compat.proto import event_pb2
            from tensorboard.plugins.histogram.summary_v2 import histogram_pb
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError as error:
            raise ImportError(
                "`log_dir` needs TensorBoard, which is not installed. Received: "
                f"log_dir={self._log_dir!r}. Install it with `python -m pip install tensorboard`, or leave it out."
            ) from error
        self._event, self._histogram, self._file = event_pb2.Event, histogram_pb, EventFileWriter

    def open(self):
        """Starts a file, next to those of earlier runs."""
        self._open = self._file(self._log_dir, filename_suffix=".firing_rates")

    def write(self, histograms, step):
        """Writes a histogram of each array in a dict, under its name."""
        for name, values in histograms.items():
            event = self._event(step=step, wall_time=time.time(), summary=self._histogram(name, values))
            self._open.add_event(event)
        self._open.flush()

    def close(self):
        """Ends the file."""
        self._open.close()
