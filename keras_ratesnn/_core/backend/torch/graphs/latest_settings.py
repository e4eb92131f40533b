"""Objects that are made for the settings of layers, such as graphs. The settings may
change at any time."""

SETTINGS_KEPT = 2
"""How many settings are remembered. Two, since the attribute `training` of PyTorch's
modules differs between training and inference."""


class LatestSettings:
    """The latest settings, each with what was made for it.

    Attributes:
        kept: List of objects with a property `were_wasted`: whether something was made
            for these settings, but not used often.
    """

    def __init__(self):
        self.kept = []
        self._patience = 1

    def present(self, are_present, new):
        """The kept object for which `are_present(kept)` is true, or else a new one.

        Args:
            are_present: Function of a kept object.
            new: Function that makes one, given its patience: an integer >= 1 that
                multiplies the number of calls to wait.
        """
        # The latest, which are last, are the most likely.
        for settings in reversed(self.kept):
            if are_present(settings):
                self.kept.remove(settings)
                break
        else:
            if len(self.kept) == SETTINGS_KEPT and self.kept[0].were_wasted:
                # Settings that change all the time are not worth the work.
                self._patience *= 2
            settings = new(self._patience)
            del self.kept[: 1 - SETTINGS_KEPT]
        self.kept.append(settings)
        return settings
