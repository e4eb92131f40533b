"""CIFAR10-DVS: 10,000 images in ten classes, each moved on a screen in front of an
event camera of 128x128 pixels.

Frames are resized to 48x48 pixels, as in the paper; ten frames of each recording take
1.8 GB. Transformers take whole frames, 128x128 pixels; 16 of each recording take 21 GB.
The data set has no predefined test set: a tenth of each class is used for testing.
"""

from recipes.data.recordings import RecordingSet

IMAGE_SHAPE = (48, 48, 2)
WHOLE_SHAPE = (128, 128, 2)
CLASS_NAMES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
CLASSES = len(CLASS_NAMES)

SOURCE = (
    "Unpack the ten .zip files of "
    "https://figshare.com/articles/dataset/CIFAR10-DVS_New/4724671 into a folder. "
    "Another source is Tonic (pip install tonic; licence GPL-3.0); save its events as "
    ".npz files."
)

load = RecordingSet("CIFAR10-DVS", CLASS_NAMES, IMAGE_SHAPE, SOURCE).load
load_whole = RecordingSet("CIFAR10-DVS", CLASS_NAMES, WHOLE_SHAPE, SOURCE).load
