"""Ready-made networks: functions that return a `SpikingModel`, pretrained networks, and
functions that add attention to one."""

from keras_ratesnn._core import docstrings, moved_names
from keras_ratesnn.models.attention import (
    spike_driven_attention,
    spiking_self_attention,
    token_attention,
)
from keras_ratesnn.models.branches import add_branches
from keras_ratesnn.models.espikeformer import ESpikeFormer
from keras_ratesnn.models.espikeformer_large import ESpikeFormerLarge
from keras_ratesnn.models.maxformer import MaxFormer
from keras_ratesnn.models.metaspikeformer import MetaSpikeFormer
from keras_ratesnn.models.ms_resnet import MSResNet18, MSResNet34, MSResNet104
from keras_ratesnn.models.preact_resnet import PreActResNet18, PreActResNet34
from keras_ratesnn.models.pretrained import (
    list_pretrained,
    load_pretrained,
)
from keras_ratesnn.models.published import from_checkpoint, to_checkpoint
from keras_ratesnn.models.qkformer import QKFormer
from keras_ratesnn.models.resnet import ResNet18, ResNet19, ResNet34
from keras_ratesnn.models.sew_resnet import (
    SEWResNet18,
    SEWResNet34,
    SEWResNet50,
    SEWResNet101,
    SEWResNet152,
)
from keras_ratesnn.models.spike_driven_transformer import SpikeDrivenTransformer
from keras_ratesnn.models.spikformer import Spikformer
from keras_ratesnn.models.spikingresformer import SpikingResformer
from keras_ratesnn.models.vgg import VGG11, VGG13, VGG16, VGGSNN

__all__ = [
    "VGG11",
    "VGG13",
    "VGG16",
    "VGGSNN",
    "ESpikeFormer",
    "ESpikeFormerLarge",
    "MSResNet18",
    "MSResNet34",
    "MSResNet104",
    "MaxFormer",
    "MetaSpikeFormer",
    "PreActResNet18",
    "PreActResNet34",
    "QKFormer",
    "ResNet18",
    "ResNet19",
    "ResNet34",
    "SEWResNet18",
    "SEWResNet34",
    "SEWResNet50",
    "SEWResNet101",
    "SEWResNet152",
    "SpikeDrivenTransformer",
    "Spikformer",
    "SpikingResformer",
    "add_branches",
    "from_checkpoint",
    "list_pretrained",
    "load_pretrained",
    "spike_driven_attention",
    "spiking_self_attention",
    "to_checkpoint",
    "token_attention",
]

docstrings.write_out(globals())
moved_names.refuse(globals())
