"""What a GPU's libraries may choose, set alike for all that is measured."""

from recipes import device


def fix(tf32):
    """Lets cuDNN look for its fastest algorithms, and allows or forbids TF32 for convolutions and matrix products of float32.

    Args:
        tf32: Boolean.
    """
    device.set_tf32(tf32)
    device.set_algorithm_search(True)
