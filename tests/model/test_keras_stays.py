"""What a model does around faults of Keras lasts for its own steps: other models find
Keras as it was."""

import sys
import types

import keras
import numpy as np
import pytest
from helpers import compiled, data, spiking


def parts_of_keras():
    """All functions, classes and modules in the modules and classes of Keras, by their
    places."""
    modules = [
        module
        for name, module in sorted(sys.modules.items())
        if name.partition(".")[0] == "keras"
    ]
    classes = {
        cls
        for module in modules
        for cls in vars(module).values()
        if isinstance(cls, type)
    }
    owners = [
        *modules,
        *(cls for cls in classes if cls.__module__.partition(".")[0] == "keras"),
    ]
    places = ((owner, *item) for owner in owners for item in vars(owner).items())
    return {
        (owner, name): value
        for owner, name, value in places
        if callable(value)
        or isinstance(value, (classmethod, property, staticmethod, types.ModuleType))
    }


def changed(before):
    """The places of parts of Keras that are other ones by now. Modules may have been
    imported since."""
    now = parts_of_keras()
    return [
        f"{owner.__name__}.{name}"
        for (owner, name), part in before.items()
        if now.get((owner, name)) is not part
    ]


def test_training_and_inference_leave_every_function_of_keras_as_it_was():
    before, between = parts_of_keras(), []
    assert len(before) > 5000
    model = compiled(spiking(), metrics=["accuracy"])
    x, y = data(8)
    look = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: between.extend(changed(before))
    )
    model.fit(x, y, batch_size=4, validation_data=(x, y), callbacks=[look], verbose=0)
    model.predict(x, verbose=0)
    model.step(x)
    with pytest.raises(Exception, match="shape"):
        model.train_on_batch(x, np.ones((8, 5)))
    assert between == changed(before) == []
