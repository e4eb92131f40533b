"""Pictures of predictions, with Matplotlib."""

import math

import numpy as np

from recipes import plots

IMAGES = 12
"""How many are drawn."""

COLORS = "tab10"
"""A palette of Matplotlib, for the classes."""


def color(kind):
    """The color of a class."""
    import matplotlib

    palette = matplotlib.colormaps[COLORS]
    return palette(kind % palette.N)


def grid(images, columns=4):
    """A figure with an image in each of its axes: `(axes, figure)`. Images without
    channels hold classes; 0 is black."""
    rows = math.ceil(len(images) / columns)
    figure = plots.new_figure(1.8 * columns, 1.9 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, image in zip(axes, images, strict=False):
        if image.ndim == 2:
            colors = [(0, 0, 0, 1), *map(color, range(int(image.max())))]
            axis.imshow(np.array(colors)[image])
        else:
            axis.imshow(image, cmap="gray", vmin=0, vmax=255)
    return axes[: len(images)], figure


def box(axis, edges, color, text="", linestyle="-"):
    """Draws a box: its left, top, right and bottom edges in pixels, with a text
    above."""
    from matplotlib.patches import Rectangle

    left, top, right, bottom = (float(edge) - 0.5 for edge in edges)
    rectangle = Rectangle(
        (left, top),
        right - left,
        bottom - top,
        fill=False,
        edgecolor=color,
        linestyle=linestyle,
    )
    look = {"color": color, "fontsize": 6, "verticalalignment": "bottom"}
    label = axis.text(left, top, text, clip_on=True, **look)
    for artist in (axis.add_patch(rectangle), label):
        # A predicted box may lie outside the image: the layout makes no room for it.
        artist.set_in_layout(False)


def save(figure, path):
    """Writes a figure to a PNG file."""
    figure.savefig(path, dpi=110, format="png")
