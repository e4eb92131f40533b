"""What docs/howto/errors_you_will_not_see.md promises: membranes are local to a
call."""

import gc
import pathlib
import re

import keras
import numpy as np
import pytest
from helpers import (
    BACKEND,
    assert_close,
    compiled,
    data,
    loss_and_gradients,
    spiking,
    to_numpy,
)
from keras import ops

PAGE = (
    pathlib.Path(__file__).parents[2] / "docs" / "howto" / "errors_you_will_not_see.md"
)

every_method = pytest.mark.parametrize(
    ("gradient", "step_mode"), [("rate", "multi"), ("bptt", "single")]
)


@pytest.mark.runs_once
def test_the_tests_of_the_page_exist():
    named = set(re.findall(r"`(test_\w+)`", PAGE.read_text(encoding="utf-8")))
    tests = "".join(
        path.read_text(encoding="utf-8")
        for path in PAGE.parents[2].glob("tests/*/test_*.py")
    )
    assert named
    assert [name for name in named if f"def {name}(" not in tests] == []


LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.mark.skipif(BACKEND == "jax", reason="there a call is a function")
@every_method
def test_calls_go_backward_in_any_order(gradient, step_mode):
    model = spiking(gradient=gradient, step_mode=step_mode)
    batches = [data(4, seed=seed) for seed in (0, 1)]
    alone = [list(loss_and_gradients(model, *batch)[1].values()) for batch in batches]
    weights = [weight.value for weight in model.trainable_variables]
    if BACKEND == "torch":
        losses = [
            LOSS(ops.convert_to_tensor(y), model(x, training=True)) for x, y in batches
        ]
        for loss in reversed(losses):
            loss.backward()
        both = [weight.grad for weight in weights]
    else:
        import tensorflow as tf

        tapes, losses = [tf.GradientTape() for _ in batches], []
        for tape, (x, y) in zip(tapes, batches, strict=True):
            with tape:
                losses.append(LOSS(y, model(x, training=True)))
        last = tapes[1].gradient(losses[1], weights)
        first = tapes[0].gradient(losses[0], weights)
        both = list(map(tf.add, first, last))
    expected = list(map(np.add, *alone))
    assert_close(both, expected, rtol=1e-4, atol=1e-6)


@every_method
def test_a_call_does_not_depend_on_earlier_ones(gradient, step_mode):
    x, y = data(8)
    used, fresh = (
        compiled(spiking(gradient=gradient, step_mode=step_mode)) for _ in range(2)
    )
    # The last batches are smaller.
    used.fit(x[:5], y[:5], batch_size=2, verbose=0)
    used.predict(x[:3], batch_size=2, verbose=0)
    fresh.set_weights(used.get_weights())
    assert_close([used(x)], [to_numpy(fresh(x))], rtol=1e-6)
    expected = pytest.approx(fresh.train_on_batch(x, y), rel=1e-6)
    assert used.train_on_batch(x, y) == expected


def live_tensors():
    gc.collect()
    if BACKEND == "jax":
        import jax

        return len(jax.live_arrays())
    # Not `isinstance`: it reads an attribute of what is no tensor, and proxies of
    # modules then import these.
    tensor = type(ops.convert_to_tensor(0.0))
    return sum(issubclass(type(found), tensor) for found in gc.get_objects())


def test_memory_does_not_grow_with_epochs():
    model, counts = compiled(spiking(), metrics=["accuracy"]), []
    x, y = data(8)
    for _ in range(3):
        history = model.fit(
            x, y, batch_size=4, validation_data=(x, y), verbose=0
        ).history
        counts.append(live_tensors())
    assert len(history["loss"]) == 1
    assert counts[2] <= counts[1]
    outputs = model(x)
    assert outputs.shape == (8, 3)
    assert live_tensors() > counts[2]


def test_time_before_the_batch_is_an_error():
    model = spiking(timesteps=3)
    x = np.zeros((10, 3, 6), "float32")
    assert model(x).shape == (10, 3)
    with pytest.raises(
        ValueError, match=r"\(batch, 6\).*\(batch, 3, 6\).*\(3, 10, 6\)"
    ):
        model(x.swapaxes(0, 1))
