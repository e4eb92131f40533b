"""Matplotlib figures of the command lines: their look, and their files."""

from recipes import packages

COLORS = ("black", "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00")
"""Distinct for the colour-blind as well (Okabe and Ito)."""

LINES = ("-", "--", "-.", ":")
MARKERS = "os^Dv"


def check_installed():
    """Raises an ImportError if Matplotlib is not installed."""
    return packages.imported("matplotlib.figure", "A figure", "plots")


def new_figure(width, height, path=None):
    """An empty figure, in inches.

    Args:
        width: Float.
        height: Float.
        path: Path of the file to which it will be saved, which is checked. Defaults to
            `None`.

    Raises:
        ImportError: If Matplotlib is not installed.
        FileNotFoundError: If the folder of the file is missing.
        ValueError: If Matplotlib does not know the file's suffix.
    """
    figure = check_installed().Figure(figsize=(width, height), layout="constrained")
    if path is not None:
        known = figure.canvas.get_supported_filetypes()
        if path.suffix.lower().removeprefix(".") not in known:
            raise ValueError(
                f"The figure {path} must have one of these suffixes: "
                f"{', '.join(known)}."
            )
        if not path.parent.is_dir():
            raise FileNotFoundError(
                f"The folder {path.parent} of the figure {path.name} does not exist. "
                "Create it first."
            )
    return figure


def style(index):
    """Colour, line and marker of one of several methods, for `plot` and `errorbar`."""
    return {
        "color": COLORS[index % len(COLORS)],
        "linestyle": LINES[index % len(LINES)],
        "marker": MARKERS[index % len(MARKERS)],
        "markersize": 5,
    }


def save(figure, path, dpi):
    """Writes a figure to a file, and a vector version (SVG) beside a PNG file. The same
    figure has the same SVG.

    Args:
        figure: A Matplotlib figure.
        path: Path of the file; its suffix determines the format.
        dpi: Integer, pixels in an inch.
    """
    import matplotlib

    figure.savefig(path, dpi=dpi)
    if path.suffix.lower() == ".png":
        with matplotlib.rc_context({"svg.hashsalt": path.stem, "svg.fonttype": "none"}):
            figure.savefig(
                path.with_suffix(".svg"), metadata={"Date": None, "Creator": None}
            )


def dress(axes, title, xlabel="", legend=None):
    """Gives axes a title, a label, a grid and, if it is not None, a legend at this
    place."""
    axes.set_title(title, fontsize="medium")
    axes.set_xlabel(xlabel)
    axes.grid(alpha=0.3)
    if legend is not None:
        axes.legend(fontsize="small", loc=legend)
