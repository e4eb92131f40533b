"""Batch normalisation folded into the layers before it."""

from keras_ratesnn.conversion._folding.fold import fold_batch_normalization

__all__ = ["fold_batch_normalization"]
