"""The share of each batch that one process reads, where several processes train together."""

import dataclasses

from recipes.checks import mistake


@dataclasses.dataclass(frozen=True)
class ProcessShare:
    """The examples that a process reads in an epoch: every n-th of each batch.

    If the last batch is smaller and not divided, or has fewer examples than there are processes, each reads all of it: the mean
    over it is the same.

    Attributes:
        number: Integer, from 0 on.
        parts: Integer, the number of processes.
        examples: Integer, the number of examples in an epoch.
        batch_size: Integer, of whole batches.
        divides_rest: Boolean, whether a last, smaller batch is divided. Defaults to `True`.

    Raises:
        ValueError: If the batch cannot be divided equally.
    """

    number: int
    parts: int
    examples: int
    batch_size: int
    divides_rest: bool = True

    def __post_init__(self):
        if self.batch_size % self.parts:
            raise mistake("batch_size", f"a multiple of the number of devices, {self.parts}", self.batch_size)

    @property
    def _divided(self):
        """The number of examples that are divided."""
        rest = self.examples % self.batch_size
        return self.examples if self.divides_rest and rest >= self.parts else self.examples - rest

    @property
    def _own(self):
        """How many of them this process reads alone."""
        return len(range(self.number, self._divided, self.parts))

    def of(self, examples):
        """The part of a `tf.data.Dataset` of all examples."""

        def is_mine(position, _):
            return (position >= self._divided) | (position % self.parts == self.number)

        return examples.enumerate().filter(is_mine).map(lambda _, example: example) if self.parts > 1 else examples

    def position(self, index):
        """Where the example with this index in the part, a tensor, is among all examples."""
        import tensorflow as tf

        own = self._own
        return tf.where(index < own, index * self.parts + self.number, self._divided + index - own) if self.parts > 1 else index

    def batches(self, examples):
        """The examples of the part in batches."""
        # TensorFlow reserves memory for whole batches.
        whole = min(self.batch_size, self.examples)
        if self.parts == 1 or self._own == 0:
            return examples.batch(whole)
        divided, rest = examples.take(self._own), examples.skip(self._own)
        return divided.batch(min(self.batch_size // self.parts, whole)).concatenate(rest.batch(whole))
