"""The page about the way of a training step names what runs, in its order."""

import pathlib
import sys

import keras
import numpy as np
from helpers import CROSSENTROPY
from keras import layers

import keras_ratesnn as rsnn

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "training_step.md"
LIBRARY = pathlib.Path(rsnn.__file__).parent
MOST_FUNCTIONS = 22


def named_functions():
    """Pairs of a file and a function, as the table of the page names them."""
    rows = [line.split("|") for line in PAGE.read_text().splitlines()]
    cells = [[cell.strip() for cell in row[1:4]] for row in rows if len(row) > 4]
    return [
        (file.strip("`"), function.strip("`"))
        for number, file, function in cells
        if number.isdigit()
    ]


def called_functions(function):
    """The functions of the library that a call runs, as pairs, in order."""
    called = []

    def record(frame, event, _):
        path = pathlib.Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(LIBRARY):
            file = path.relative_to(LIBRARY).as_posix()
            called.append((file, frame.f_code.co_qualname))

    before = sys.getprofile()
    sys.setprofile(record)
    try:
        function()
    finally:
        sys.setprofile(before)
    return called


def test_a_training_step_runs_the_functions_of_the_page_in_their_order():
    network = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(2, 3),
            layers.BatchNormalization(),
            rsnn.layers.LIF(),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    model = rsnn.SpikingModel(network, timesteps=4, gradient="rate")
    model.compile("sgd", CROSSENTROPY, jit_compile=False)
    images, labels = np.ones((4, 6, 6, 1), "float32"), np.zeros(4, "int32")
    called = iter(called_functions(lambda: model.fit(images, labels, verbose=0)))
    functions = named_functions()
    assert 0 < len(functions) <= MOST_FUNCTIONS
    for function in functions:
        assert function in called, f"{function} does not run after those before it"
