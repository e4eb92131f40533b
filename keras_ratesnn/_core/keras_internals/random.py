"""Random generators with other seeds."""

from keras import ops

from keras_ratesnn._core.keras_internals.layers import with_sublayers
from keras_ratesnn._core.keras_internals.losses import with_owners
from keras_ratesnn._core.keras_internals.scopes import Through


def seed_states(layer):
    """The state variables of the random generators of a layer and its sublayers: a
    tuple."""
    return tuple(
        generator.state
        for inside in with_sublayers(layer)
        for generator in inside._seed_generators
    )


class ShiftedSeeds(Through):
    """A scope in which the random generators of a network have shifted seeds.

    Args:
        network: A Keras model.
        offset: Integer scalar tensor, added to each seed.
        in_threads: Boolean, whether other replicas are threads of this process, whose
            losses are forgotten.
    """

    def __init__(self, network, offset, in_threads):
        super().__init__(collect_losses=True)
        self._network = network
        self._in_threads = in_threads
        self._states = set(map(id, seed_states(network)))
        # A state is a seed and a counter.
        self._shift = ops.stack([offset, ops.zeros_like(offset)])

    def get_current_value(self, variable):
        value = super().get_current_value(variable)
        if id(variable) not in self._states:
            return value
        value = ops.convert_to_tensor(variable._value) if value is None else value
        return value + ops.cast(self._shift, value.dtype)

    def add_update(self, update):
        variable, value = update
        if id(variable) not in self._states:
            super().add_update(update)
            return
        # The assignment itself needs the variable.
        self._states.discard(id(variable))
        super().add_update((variable, value - ops.cast(self._shift, value.dtype)))
        self._states.add(id(variable))

    def __exit__(self, *error):
        super().__exit__(*error)
        layers = list(with_sublayers(self._network))
        if self._in_threads:
            for layer in layers:
                layer._losses.clear()
        for layer, loss in with_owners(self.losses, layers):
            layer.add_loss(loss)
