"""Small networks of layers, one after the other."""

import keras


def chain(*parts, shape=(6,), **kwargs):
    return keras.Sequential([keras.Input(shape, **kwargs), *parts])
