"""Accuracy of a run after its spikes are shuffled in time: `python -m
recipes.compare.shuffled RUN [RUN ...]`.

Writes the accuracy to the result of each run, as `shuffled_accuracy`: short tables of
`recipes.compare.results` then have it.
"""

from keras_ratesnn import analysis
from recipes import command_line, figures
from recipes.atomic_files import write_json
from recipes.run_folder import RunFolder, score_name, test_score


def add_arguments(parser):
    command_line.add_path(parser, "runs", "folders of finished runs", "RUN", nargs="+")
    command_line.add_data_dir(parser)


def shuffle(arguments):
    for folder in map(RunFolder, arguments.runs):
        with command_line.mistakes():
            record = folder.read_test_result()
            model, dataset = figures.model_and_data(folder.path, arguments.data_dir)
            shuffled = analysis.shuffle_in_time(
                model, dataset.test_images, dataset.test_labels, verbose=0
            )
            write_json(
                folder.result, {**record, "shuffled_accuracy": shuffled.shuffled}
            )
        scores = (
            f"{score_name(record)} {test_score(record):.4f}, shuffled in time "
            f"{shuffled.shuffled:.4f}"
        )
        print(f"{folder.path}: {scores}", flush=True)


main = command_line.command(
    __name__, "compare.shuffled", __doc__, add_arguments, shuffle
)
