"""The report of `fold_batch_normalization`."""

import dataclasses

from keras_ratesnn.conversion._listing import grouped


@dataclasses.dataclass(frozen=True)
class Change:
    """What became of one batch normalisation.

    Args:
        name: String, the name of the layer.
        into: String, the name of the layer into which it was folded; empty if it is kept.
        reason: String, why it is kept; empty if it was folded.
    """

    name: str
    into: str = ""
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Report:
    """What `fold_batch_normalization` did to a network; it can be printed.

    Args:
        changes: Tuple of `Change`, one for each batch normalisation of the network.
    """

    changes: tuple[Change, ...]

    @property
    def folded(self) -> tuple[Change, ...]:
        """The batch normalisations that are gone."""
        return tuple(change for change in self.changes if not change.reason)

    @property
    def kept(self) -> tuple[Change, ...]:
        """The batch normalisations that were kept."""
        return tuple(change for change in self.changes if change.reason)

    def __str__(self) -> str:
        first = f"fold_batch_normalization: {len(self.folded)} of {len(self.changes)} batch normalisations were folded."
        return "\n".join([first, *grouped(self.kept, lambda change: f"stays ({change.reason})")])
