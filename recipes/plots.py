"""Matplotlib figures of the command lines."""


def check_installed():
    """Raises an ImportError if Matplotlib is not installed."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "The figure needs Matplotlib, which is not installed. Install it with `python -m pip install -e '.[plots]'`."
        ) from error


def new_figure(width, height, path=None):
    """An empty figure, in inches.

    Args:
        width: Float.
        height: Float.
        path: Path of the file to which it will be saved, which is checked. Defaults to `None`.

    Raises:
        ImportError: If Matplotlib is not installed.
        FileNotFoundError: If the folder of the file is missing.
        ValueError: If Matplotlib does not know the file's suffix.
    """
    check_installed()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    if path is not None:
        known = figure.canvas.get_supported_filetypes()
        if path.suffix.lower().removeprefix(".") not in known:
            raise ValueError(f"The figure {path} must have one of these suffixes: {', '.join(known)}.")
        if not path.parent.is_dir():
            raise FileNotFoundError(f"The folder {path.parent} of the figure {path.name} does not exist. Create it first.")
    return figure


def set_up_against_timesteps(axes, timesteps, title):
    """Gives axes that have lines against T their title, legend and ticks, which are these values of T."""
    columns = sorted(set(timesteps))
    axes.set_xscale("log", base=2)
    axes.set_xticks(columns, [str(column) for column in columns])
    axes.minorticks_off()
    axes.set_xlabel("T")
    axes.set_title(title, fontsize="medium")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
