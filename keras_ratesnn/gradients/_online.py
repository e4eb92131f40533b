"""Shared by the online methods, which have no gradient between time steps."""

from keras import ops

from keras_ratesnn._core import backend, tree
from keras_ratesnn.gradients import _recomputed_steps, _state
from keras_ratesnn.gradients._mixing_pass import MixingPass
from keras_ratesnn.gradients.forward import ForwardRule
from keras_ratesnn.gradients.neuron_pass import NeuronPass
from keras_ratesnn.gradients.step_modes import step_mode_of


def run_online(run, rule, recompute, chosen=None):
    """The outputs of a run, differentiated with `rule`.

    Args:
        run: `Run`.
        rule: Subclass of `OnlineRule` used to differentiate steps.
        recompute: Boolean, whether single-step mode recomputes each step for its backward pass and stores none.
        chosen: Boolean tensor `(T,)`: which steps carry gradient. Defaults to `None`, all steps.
    """
    step_mode = step_mode_of(run)
    if not run.with_gradient:
        return step_mode.run(ForwardRule(step_mode, run.training, with_gradient=False), run)
    recompute = recompute and not step_mode.sees_all_steps
    if (recompute or rule.replaces_weights) and backend.loses_replaced_weights(run.network):
        raise ValueError(
            "TensorFlow loses the gradients of layers made in a keras.RematScope where a training method puts tensors in the "
            f"place of weights. Received: network {run.network.name!r} with such layers. Make it outside of the scope: "
            "single-step mode keeps the activations of one step alone."
        )
    if recompute:
        return _recomputed_steps.recomputed(run, lambda step_mode: rule(step_mode, run.training), chosen)
    return step_mode.run(rule(step_mode, run.training, chosen), run)


def check_steps_are_separate(name, neurons):
    """Raises ValueError if a spike of one of these neuron layers depends on inputs of later steps.

    Args:
        name: String, the name of the method.
        neurons: List of `keras_ratesnn.layers.Neuron`.
    """
    for neuron in neurons:
        if neuron.cell.sees_all_steps:
            raise ValueError(
                f'gradient="{name}" differentiates each time step by itself. Received: layer {neuron.name!r} of type '
                f"{type(neuron).__name__}, whose spikes depend on inputs of all steps, and which has no state. Train with "
                'gradient="bptt" or "rate".'
            )


class OnlineRule(ForwardRule):
    """The spiking network; the state that a neuron carries from one step to the next has no gradient.

    Args:
        step_mode: See `Rule`.
        training: See `Rule`.
        chosen: See `run_online`.
    """

    replaces_weights = False
    """Whether tensors take the place of weights."""

    def __init__(self, step_mode, training, chosen=None):
        super().__init__(step_mode, training, with_gradient=True)
        self.chosen = chosen

    def neuron_pass(self, neuron):
        return DetachedPass(neuron.cell_in_time(self.training), neuron.compute_dtype, self.with_gradient)

    def mixed(self, key, mixing_pass, signal):
        detached = _DetachedMixing(mixing_pass.cell, mixing_pass.dtype, mixing_pass.with_gradient)
        return self.step_mode.mix_step_by_step(key, detached, signal)

    def output(self, tensor):
        return self._with_gradient_of_chosen(tensor)

    def regularize(self, call, outputs):
        super().regularize(call, tree.map_leaves(self._with_gradient_of_chosen, outputs))

    def operation(self, call):
        outputs = super().operation(call)
        if call.key in self.step_mode.adds_losses:
            self._differentiate_losses(call)
        return outputs

    def add_loss(self, call, loss, t=None):
        if self.chosen is not None and not self.is_static(call):
            if t is None:
                # Its derivative would be that of all steps: `_differentiate_losses` finds that of the chosen ones.
                self.step_mode.adds_losses.add(call.key)
                loss = ops.stop_gradient(loss)
            else:
                loss = ops.where(ops.take(self.chosen, t), loss, ops.stop_gradient(loss))
        super().add_loss(call, loss, t)

    def _differentiate_losses(self, call):
        """Adds the derivative, without the value, of the losses that an operation adds at the chosen steps."""
        for t in range(self.step_mode.timesteps):
            args, kwargs = self._arguments_at(call, t)
            with _state.kept(call):
                _, losses = self.outputs_and_losses(call, args, kwargs)
            for loss in losses:
                derivative = (loss - ops.stop_gradient(loss)) / self.step_mode.timesteps
                super().add_loss(call, ops.where(ops.take(self.chosen, t), derivative, 0.0), t)

    def _with_gradient_of_chosen(self, steps):
        if self.chosen is None:
            return steps
        chosen = ops.take(self.chosen, self.step_mode.time_steps([steps]))
        chosen = ops.reshape(chosen, (-1, *[1] * (len(steps.shape) - 1)))
        return ops.where(chosen, steps, ops.stop_gradient(steps))


class DetachedPass(NeuronPass):
    """Neurons in a time loop whose state carries no gradient from one step to the next."""

    # At once, a step would be differentiated with respect to the inputs of others.
    parallel = False

    def advance(self, phase, current, carried):
        return super().advance(phase, current, tree.map_leaves(ops.stop_gradient, carried))


class _DetachedMixing(MixingPass):
    """A layer that mixes time steps, in such a loop."""

    def advance(self, phase, current, carried):
        return super().advance(phase, current, tree.map_leaves(ops.stop_gradient, carried))
