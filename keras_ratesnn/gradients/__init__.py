"""Training methods, one file each; `method.py` defines their interface, `extend` has
what methods of your own are made of."""

from keras_ratesnn._core import moved_names
from keras_ratesnn.gradients import extend
from keras_ratesnn.gradients.bptt import BPTT
from keras_ratesnn.gradients.lookup import get
from keras_ratesnn.gradients.method import GradientMethod
from keras_ratesnn.gradients.ottt import OTTT
from keras_ratesnn.gradients.rate import Rate
from keras_ratesnn.gradients.sltt import SLTT

__all__ = ["BPTT", "OTTT", "SLTT", "GradientMethod", "Rate", "extend", "get"]

moved_names.refuse(globals())
