"""The recipes of spiking transformers, for a GPU; ImageNet needs several.

Networks, numbers of time steps, epochs, batch sizes, learning rates, weight decays and
augmentations are those of the files of settings in the authors' programs, which are
named beside the recipes. The optimizer is AdamW with a cosine, as theirs. What differs:

* the gradient is the rate gradient; theirs is BPTT (`--set gradient=bptt`);
* the warm-up takes a twentieth of the epochs (theirs: 20 of 300 or 400, 5 of 200 and 10
  of 96), the learning rate falls to 0 instead of 1e-5 or less, without the 10 epochs at
  the end that some add, and gradients are clipped to a norm of 10;
* labels are not smoothed (theirs by 0.1), and no block is dropped at random;
* mixup has weights of a uniform distribution in all epochs, and is not alternated with
  CutMix;
* on ImageNet there is no RandAugment and no random erasing, only crops, flips and mixup
  where they have it;
* on CIFAR10-DVS frames are flipped and rolled, instead of SNNAugment and mixup.

None of these recipes has been trained to the end.

Sources: Zhou et al., "Spikformer", ICLR 2023, github.com/ZK-Zhou/spikformer; Zhou et
al., "QKFormer", NeurIPS 2024, github.com/zhouchenlin2096/QKFormer; Fang et al.,
"Spiking Transformers Need High-Frequency Information" (Max-Former), NeurIPS 2025,
github.com/bic-L/MaxFormer.
"""

import functools

from keras_ratesnn import models
from recipes import layers
from recipes.data import cifar, events, imagenet
from recipes.recipe import Recipe


def build_network(build, image_shape, classes, dims, depth, heads, width):
    """The network of one time step of a transformer.

    Args:
        build: A function of `keras_ratesnn.models`.
        image_shape: Tuple, the shape of an image in Keras' image data format.
        classes: Integer.
        dims: Integer, the number of channels of the last stage at width 1.
        depth: Integer, the number of blocks.
        heads: Even integer, which must divide the channels of all stages, of which
            there are at most three.
        width: Float that multiplies channels; they are rounded to multiples of `4 *
            heads`.
    """
    unit = 4 * heads
    dims = unit * max(1, round(width * dims / unit))
    return build(
        input_shape=image_shape, classes=classes, dims=dims, blocks=depth, heads=heads
    ).network


def on_photographs(image_shape, classes, pixels, depth, heads, build, width):
    """A network of 384 channels after the normalisation of pixels, their mean and
    standard deviation; for the others see `build_network`."""
    network = build_network(build, image_shape, classes, 384, depth, heads, width)
    return layers.on_pixels(network, *pixels)


recipe = functools.partial(Recipe, timesteps=4, optimizer="adamw")


def cifar_recipe(build, data_set, heads, learning_rate, epochs, batch_size):
    """Four blocks and 384 channels on CIFAR-10 or CIFAR-100, T = 4."""
    return recipe(
        name=f"{data_set}_{build.__name__.lower()}",
        load_data=functools.partial(cifar.load, data_set),
        build_network=functools.partial(
            on_photographs,
            cifar.IMAGE_SHAPE,
            cifar.CLASSES[data_set],
            cifar.PIXELS[data_set],
            4,
            heads,
            build,
        ),
        weight_decay=0.06,
        augment="transformer",
        mix="mixup",
        learning_rate=learning_rate,
        epochs=epochs,
        batch_size=batch_size,
    )


def dvs_recipe(build, learning_rate):
    """Two blocks and 256 channels on CIFAR10-DVS, T = 16."""
    return recipe(
        name=f"cifar10_dvs_{build.__name__.lower()}",
        load_data=events.WHOLE_CIFAR10_DVS.load,
        build_network=functools.partial(
            build_network, build, (128, 128, 2), 10, 256, 2, 16
        ),
        has_time=True,
        timesteps=16,
        learning_rate=learning_rate,
        weight_decay=0.06,
        epochs=96,
        batch_size=16,
        augment="cifar10_dvs",
    )


def imagenet_recipe(build, depth, heads, learning_rate, epochs, batch_size, mix):
    """384 channels on ImageNet, T = 4; `depth` is the number of blocks."""
    return recipe(
        name=f"imagenet_{build.__name__.lower()}",
        load_data=imagenet.load,
        build_network=functools.partial(
            on_photographs,
            imagenet.IMAGE_SHAPE,
            imagenet.CLASSES,
            imagenet.PIXELS,
            depth,
            heads,
            build,
        ),
        weight_decay=0.05,
        augment="imagenet",
        mix=mix,
        learning_rate=learning_rate,
        epochs=epochs,
        batch_size=batch_size,
    )


RECIPES = (
    # Heads, learning rate, epochs and batch size.
    cifar_recipe(
        models.Spikformer, "cifar10", 12, 5e-4, 300, 128
    ),  # cifar10/cifar10.yml, the only file for CIFAR
    cifar_recipe(models.Spikformer, "cifar100", 12, 5e-4, 300, 128),  # likewise
    cifar_recipe(models.QKFormer, "cifar10", 8, 1e-3, 400, 64),  # cifar10/cifar10.yml
    cifar_recipe(
        models.QKFormer, "cifar100", 8, 1e-3, 400, 64
    ),  # cifar100/cifar100.yml
    cifar_recipe(
        models.MaxFormer, "cifar10", 8, 1.5e-3, 400, 128
    ),  # cifar10-100/cifar10.yaml
    cifar_recipe(
        models.MaxFormer, "cifar100", 8, 1.5e-3, 400, 64
    ),  # cifar10-100/cifar100.yaml
    # Learning rate.
    dvs_recipe(models.Spikformer, 1e-3),  # the defaults of cifar10dvs/train.py
    dvs_recipe(models.QKFormer, 5e-3),  # the defaults of cifar10-dvs/train.py
    dvs_recipe(models.MaxFormer, 5e-3),  # event/cifar10dvs.yaml
    # Blocks, heads, learning rate, epochs, batch size and mix. QKFormer's and
    # Max-Former's learning rates, 6e-4 and 1.35e-3 for 256 images in a batch, grow with
    # the batch. 512 is that of this repository's ResNets; Max-Former has 64 for each
    # GPU.
    imagenet_recipe(
        models.Spikformer, 8, 12, 5e-4, 300, 192, "mixup"
    ),  # imagenet/imagenet.yml, for 8-512; 24 on each of 8 GPUs
    imagenet_recipe(
        models.QKFormer, 10, 6, 1.2e-3, 200, 512, "none"
    ),  # the defaults of imagenet/train.py
    imagenet_recipe(
        models.MaxFormer, 10, 6, 2.7e-3, 200, 512, "mixup"
    ),  # imagenet/conf/10_384_t4.yml
)
