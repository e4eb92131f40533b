"""`BPTT(recompute=True)` as a class that a command line can name:
`--method recipes.benchmark.recomputed:RecomputedBPTT-multi`."""

import keras

from keras_ratesnn.gradients import BPTT


@keras.saving.register_keras_serializable(package="recipes")
class RecomputedBPTT(BPTT):
    """`BPTT`, which by default runs layers again in the backward pass."""

    def __init__(self, recompute: bool = True) -> None:
        super().__init__(recompute)
