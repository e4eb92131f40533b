"""What became of the weights in a checkpoint."""

import dataclasses
from collections import Counter


@dataclasses.dataclass(frozen=True, eq=False)
class CheckpointReport:
    """What `from_checkpoint` read, and what it made of it; as text, a summary.

    Args:
        path: String, the file.
        place: String, the key at the top level of the file under which the weights were; `""` if it is all weights.
        network: String, the architecture.
        builder: String, the function of `keras_ratesnn.models`.
        found: Dict of arguments that the weights told.
        assumed: Dict of arguments that they do not tell, to a text that says what was taken and why.
        note: String, what the authors' program does in another way, or `""`.
        prefixed: Boolean, whether `module.` was removed from all names.
        renamed: Dict of the authors' names of weights, without containers called `module`, to ours: all that were read.
        reshaped: Dict of the authors' names to pairs of shapes, theirs and ours.
        zeros: List of our weights that the authors' network does not have, and which are 0.
        unused: Dict of the authors' names of weights that were left out to the reason.
    """

    path: str
    place: str
    network: str
    builder: str
    found: dict[str, object]
    assumed: dict[str, str]
    note: str = ""
    prefixed: bool = False
    renamed: dict[str, str] = dataclasses.field(default_factory=dict)
    reshaped: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = dataclasses.field(default_factory=dict)
    zeros: list[str] = dataclasses.field(default_factory=list)
    unused: dict[str, str] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        lines = [
            f"{self.path}: {self.network}, a {self.builder}, from {self.place or 'the top level'}",
            f"  in the weights: {', '.join(f'{name}={value!r}' for name, value in self.found.items())}",
            *(f"  assumed: {name}={text}" for name, text in self.assumed.items()),
            f"  read: {len(self.renamed)} weights, all renamed, {len(self.reshaped)} reshaped"
            + (", without the prefix module." if self.prefixed else ""),
        ]
        if self.zeros:
            lines.append(f"  set to 0: {len(self.zeros)} weights that the authors' network does not have, {self.zeros[0]} etc.")
        first = {reason: name for name, reason in reversed(self.unused.items())}
        lines += [f"  unused: {n}, {first[reason]} etc.: {reason}" for reason, n in Counter(self.unused.values()).items()]
        lines += [f"  note: {self.note}"] if self.note else []
        return "\n".join(lines)
