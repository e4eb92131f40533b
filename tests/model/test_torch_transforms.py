"""PyTorch's transforms of functions around the call of a model: the right numbers, or
an error that says what to do."""

import contextlib

import keras
import pytest
from helpers import BACKEND, assert_close, both_step_modes, chain, data, mlp, spiking
from keras import layers

import keras_ratesnn as rsnn

if BACKEND != "torch":
    pytest.skip("other backends have other transforms", allow_module_level=True)

import torch
from helpers import rate_and_bptt
from torch.utils.checkpoint import checkpoint

pytestmark = pytest.mark.runs_once


def inputs():
    return torch.tensor(data(4, (6,))[0])


@pytest.mark.parametrize(
    "transform",
    [torch.func.vmap, torch.func.jacrev, torch.func.jacfwd],
    ids=lambda each: each.__name__,
)
def test_a_call_in_a_transform_of_functions_is_an_error(transform):
    model = spiking()
    with pytest.raises(
        RuntimeError,
        match=r"model 'spiking_model.*' inside of one\. Call it on whole batches",
    ):
        transform(lambda x: model(x[None] if x.ndim == 1 else x))(inputs())


def test_parameters_that_functional_call_replaces_are_an_error():
    """Keras' layers would use their own weights."""
    model, x = spiking(), (inputs(),)
    parameters, expected = dict(model.named_parameters()), model(*x)
    call = torch.func.functional_call
    torch.testing.assert_close(call(model, parameters, x), expected)
    replaced = {name: value.detach() + 1.0 for name, value in parameters.items()}
    message = r"with other parameters\. Use model\.stateless_call"
    with pytest.raises(RuntimeError, match=message):
        call(model, replaced, x)
    torch.testing.assert_close(model(*x), expected)


def gradients_of_call(model, call):
    """Of a function of the model and inputs, by the weights."""
    call(lambda x: model(x, training=True), inputs()).square().sum().backward()
    weights = [variable.value for variable in model.trainable_variables]
    gradients = [weight.grad.clone() for weight in weights]
    model.zero_grad()
    return gradients


def plain(function, x):
    return function(x)


def checkpointed(function, x):
    return checkpoint(function, x, use_reentrant=False)


def reentrant(function, x):
    return checkpoint(function, x.requires_grad_(), use_reentrant=True)


def drawing(step_mode, around_layers=False, around_model=False):
    keras.utils.set_random_seed(0)
    dropout, neurons = layers.Dropout(0.5, seed=1), rsnn.layers.LIF()
    nothing = contextlib.nullcontext()
    with keras.RematScope() if around_layers else nothing:
        network = chain(layers.Dense(8), dropout, neurons, layers.Dense(3))
    with keras.RematScope() if around_model else nothing:
        return spiking(network, step_mode=step_mode)


@both_step_modes
def test_a_repeated_call_that_would_draw_other_numbers_is_an_error(step_mode):
    message = "model 'spiking_model.*', which draws random numbers, in a backward pass"
    for arguments, call in (
        ({}, checkpointed),
        ({}, reentrant),
        ({"around_model": True}, plain),
    ):
        model = drawing(step_mode, **arguments)
        with pytest.raises(RuntimeError, match=message):
            gradients_of_call(model, call)
    results = [
        gradients_of_call(drawing(step_mode, around_layers=around), plain)
        for around in (False, True)
    ]
    assert_close(*results, rtol=1e-5, atol=1e-6)


@rate_and_bptt
def test_a_checkpointed_call_is_repeated_by_the_same_operations(gradient):
    """Also where loops of small layers, which have been called often enough, would have
    been compiled in between."""
    model = spiking(mlp(), gradient=gradient)
    expected = gradients_of_call(model, plain)
    for _ in range(12):
        gradients = gradients_of_call(model, checkpointed)
        assert_close(gradients, expected, rtol=1e-5, atol=1e-6)
