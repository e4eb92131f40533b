"""Models with a whole training step of their own."""

import keras


class OwnStep:
    """A whole training step of its own, as Keras' guides write it for each backend; its
    log is `"own"`.

    It goes before the class of the model: Keras changes the bases of one that is given
    inputs and outputs.
    """

    def train_step(self, *args):
        return getattr(self, f"_{keras.backend.backend()}_step")(*args)

    def _tensorflow_step(self, data):
        import tensorflow as tf

        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(y=y, y_pred=self(x, training=True))
        self.optimizer.apply(
            tape.gradient(loss, self.trainable_variables), self.trainable_variables
        )
        return {"own": loss}

    def _torch_step(self, data):
        x, y = data
        self.zero_grad()
        loss = self.compute_loss(y=y, y_pred=self(x, training=True))
        loss.backward()
        self.optimizer.apply(
            [weight.value.grad for weight in self.trainable_weights],
            self.trainable_weights,
        )
        return {"own": loss.detach()}

    def _jax_step(self, state, data):
        import jax

        x, y = data
        trainable, fixed, optimizer, metrics = state

        def loss_and_state(trainable, fixed):
            outputs, fixed = self.stateless_call(trainable, fixed, x, training=True)
            return self.compute_loss(y=y, y_pred=outputs), fixed

        (loss, fixed), gradients = jax.value_and_grad(loss_and_state, has_aux=True)(
            trainable, fixed
        )
        trainable, optimizer = self.optimizer.stateless_apply(
            optimizer, gradients, trainable
        )
        return {"own": loss}, (trainable, fixed, optimizer, metrics)
