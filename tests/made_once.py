"""What several workers of pytest need is made by the first of them."""

import time


def made_once(name, make, tmp_path_factory, request, seconds=500):
    """A folder that `make(folder)` fills, in the first worker that asks for it.

    Args:
        name: String, the name of the folder.
        make: Function of the folder.
        tmp_path_factory: The fixture.
        request: The fixture.
        seconds: Float, how long other workers wait.

    Returns:
        The path of the folder, the same in all workers.
    """
    here = tmp_path_factory.getbasetemp()
    folder = (here.parent if hasattr(request.config, "workerinput") else here) / name
    try:
        folder.mkdir()
    except FileExistsError:
        deadline = time.monotonic() + seconds
        while not (folder / "done").exists():
            assert time.monotonic() < deadline, (
                f"{folder} was not completed by another worker"
            )
            time.sleep(0.5)
    else:
        try:
            make(folder)
        finally:
            (folder / "done").touch()
    return folder
