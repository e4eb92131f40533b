"""Networks lowered to a few kinds of nodes: what inference computes, for NIR and for
integers."""

from keras_ratesnn._lowered.lowering import lower as lower
from keras_ratesnn._lowered.refusals import Refusals as Refusals
