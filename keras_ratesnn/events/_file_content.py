"""A file of events: its content, and the errors for one that is damaged."""

import pathlib

from keras_ratesnn._core import checks
from keras_ratesnn.events.recording import check_size


class EventFile:
    """A file of events in one of their forms.

    Args:
        path: The argument of the user.
        form: String, what the file must be, such as `"AEDAT 3.1 file"`.

    Attributes:
        path: String.
        size: Integer, its bytes.
    """

    def __init__(self, path, form):
        self.path, self.size = checks.file("path", path)
        self._form = form

    def content(self):
        """Its bytes; raises an error for a file that is too large before it is read."""
        check_size(self.path, self.size)
        return pathlib.Path(self.path).read_bytes()

    def damaged(self, byte, what):
        """The error for a file that is not a whole file of its form."""
        advice = "Unpack or download it again, or leave it out."
        return ValueError(
            f"{self.path} is not a whole {self._form}, at byte {byte}: {what}. {advice}"
        )

    def check_events(self, start, event_bytes):
        """Raises ValueError if there is a part of an event at the end."""
        surplus = (self.size - start) % event_bytes
        if surplus:
            raise self.damaged(
                self.size - surplus,
                f"an event takes {event_bytes} bytes, and the file ends after "
                f"{surplus}",
            )

    def check_version(self, content, wanted):
        """Raises ValueError if the first line is another one."""
        version = content.split(b"\n", 1)[0].rstrip()
        if version != wanted:
            raise self.damaged(
                0,
                f"its first line must be {wanted.decode()} and begins with "
                f"{version[:20]!r}",
            )

    def header_lines(self, content, mark):
        """Yields the first lines, those that start with a mark: where each begins,
        where the next one does, and its text."""
        start = 0
        while content.startswith(mark, start):
            end = content.find(b"\n", start)
            if end < 0:
                raise self.damaged(
                    start, "the line of the header that begins there does not end"
                )
            yield start, end + 1, content[start:end].rstrip()
            start = end + 1
