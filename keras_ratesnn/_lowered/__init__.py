"""Networks lowered to a few kinds of nodes: what inference computes, for NIR and for
integers."""
# What is imported is passed on.
# ruff: noqa: F401

from keras_ratesnn._lowered.lowering import lower
from keras_ratesnn._lowered.refusals import Refusals
