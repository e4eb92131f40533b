"""Matplotlib figures of the command lines."""


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
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "The figure needs Matplotlib, which is not installed. Install it with `python -m pip install -e '.[plots]'`."
        ) from error
    figure = Figure(figsize=(width, height), layout="constrained")
    if path is not None:
        known = figure.canvas.get_supported_filetypes()
        if path.suffix.lower().removeprefix(".") not in known:
            raise ValueError(f"The figure {path} must have one of these suffixes: {', '.join(known)}.")
        if not path.parent.is_dir():
            raise FileNotFoundError(f"The folder {path.parent} of the figure {path.name} does not exist. Create it first.")
    return figure
