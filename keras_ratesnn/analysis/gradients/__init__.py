"""The gradients of training methods: how far they agree, and the assumptions of the
rate gradient."""
