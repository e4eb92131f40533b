"""The parts that the transformers share, which users have no need of: the reference
cases build single blocks of them."""

from keras_ratesnn.models._transformers import Design, spike_block, tokens

__all__ = ["Design", "spike_block", "tokens"]
