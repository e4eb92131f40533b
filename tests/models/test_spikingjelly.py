"""Networks of SpikingJelly, whose weights have torchvision's names, compute here what
they compute there."""

import importlib
import types

import numpy as np
import pytest
import torch
from helpers import BACKEND

import keras_ratesnn as rsnn
from keras_ratesnn.models import from_checkpoint, to_checkpoint

T, CLASSES, CHANNELS = 3, 10, 3
NARROWER = 16

NETWORKS = {
    "sew_resnet18": "sew_resnet",
    "spiking_resnet50": "spiking_resnet",
    "spiking_vgg11": "spiking_vgg",
    "spiking_vgg16_bn": "spiking_vgg",
}
"""Functions of SpikingJelly, and the modules that they are in."""


class Case:
    """A network of SpikingJelly with a sixteenth of the channels, and what it
    computes."""

    def __init__(self, name):
        from spikingjelly.activation_based import functional, layer, neuron

        def narrow(kind, numbers):
            def init(self, *args, **kwargs):
                narrowed = [
                    n if n in (CHANNELS, CLASSES) else n // NARROWER
                    for n in args[:numbers]
                ]
                kind.__init__(self, *narrowed, *args[numbers:], **kwargs)

            return type(kind.__name__, (kind,), {"__init__": init})

        self.network = f"spikingjelly_{NETWORKS[name]}"
        module = importlib.import_module(
            f"spikingjelly.activation_based.model.{NETWORKS[name]}"
        )
        narrower = types.SimpleNamespace(**vars(layer))
        narrower.Conv2d = narrow(layer.Conv2d, 2)
        narrower.Linear = narrow(layer.Linear, 2)
        narrower.BatchNorm2d = narrow(layer.BatchNorm2d, 1)
        kwargs = {"num_classes": CLASSES, **({"cnf": "ADD"} if "sew" in name else {})}
        torch.manual_seed(0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "layer", narrower)
            net = getattr(module, name)(spiking_neuron=neuron.IFNode, **kwargs)
        self.weights = net.state_dict()
        for key, weight in self.weights.items():
            if key.startswith("classifier") and weight.ndim == 2:
                weight.normal_(0.0, weight.shape[1] ** -0.5)
            elif weight.is_floating_point() and weight.ndim == 1:
                is_scale = key.endswith(("weight", "var"))
                weight.uniform_(*((0.3, 1.3) if is_scale else (-0.3, 0.4)))
        # VGGs average images of other sizes than 224 x 224 to 7 x 7 before their dense
        # layers.
        side = 224 if name == "spiking_vgg16_bn" else 64
        random = np.random.default_rng(0)
        self.x = random.uniform(size=(2, side, side, CHANNELS)).astype("float32")
        functional.set_step_mode(net.eval(), "m")
        images = torch.from_numpy(self.x.transpose(0, 3, 1, 2))
        with torch.no_grad():
            self.outputs = net(images.repeat(T, 1, 1, 1, 1)).mean(0).numpy()

    def saved(self, path):
        torch.save({"model": self.weights}, path)
        return path

    def read(self, path, **kwargs):
        options = {"timesteps": T, "verbose": False, **kwargs}
        shape = self.x.shape[1:]
        return from_checkpoint(path, self.network, input_shape=shape, **options)


@pytest.mark.backends(2)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=()
            if BACKEND == "torch" or name.endswith(("18", "11"))
            else pytest.mark.slow,
        )
        for name in NETWORKS
    ],
)
def test_networks_of_spikingjelly_compute_what_they_compute_there(name, tmp_path):
    case = Case(name)
    path = case.saved(tmp_path / "net.pth")
    model = case.read(path)
    assert case.outputs.std(axis=0).max() > 0.01
    np.testing.assert_allclose(
        model.predict(case.x, verbose=0), case.outputs, rtol=0, atol=1e-4
    )
    report = model.checkpoint_report
    assert (report.network, report.found["width"]) == (case.network, 1 / NARROWER)
    assert report.assumed["neuron"] == "IF(reset='hard')"
    assert "torchvision" in report.note
    features = case.read(path, include_top=False)
    assert len(features.network.output_shape) == 4


def test_names_of_torchvision_do_not_tell_the_network(tmp_path):
    path = Case("sew_resnet18").saved(tmp_path / "net.pth")
    told = "spikingjelly_sew_resnet or spikingjelly_spiking_resnet"
    for network in (None, "sew_resnet"):
        names = f"names that are torchvision's.*net.pth', network={network!r}"
        with pytest.raises(ValueError, match=f"`network` must be {told}, .*{names}"):
            from_checkpoint(path, network)


def test_a_refused_file_says_which_names_were_expected(tmp_path):
    path = tmp_path / "net.pth"
    names = "conv1.weight", "layer1.0.a.weight"
    torch.save({name: torch.ones(2, 3, 7, 7) for name in names}, path)
    layers = r"sew_resnet are conv1, bn1, layer\{s\}\.\{b\}\.conv\{n\}\.module\.0"
    message = rf"other names: conv1.weight, layer1.0.a.weight. The layers of {layers}"
    for network in ("sew_resnet", None):
        with pytest.raises(ValueError, match=message):
            from_checkpoint(path, network)


def test_vggs_are_written_as_spikingjelly_has_them_and_resnets_as_before(tmp_path):
    case, path = Case("spiking_vgg11"), tmp_path / "written.pth"
    to_checkpoint(case.read(case.saved(tmp_path / "net.pth")), path)
    written = torch.load(path)["model"]
    assert written.keys() == case.weights.keys()
    for name, weight in case.weights.items():
        assert torch.equal(written[name], weight)
    options = {"width": 1 / 32, "stem": "imagenet", "neuron": rsnn.layers.IF}
    to_checkpoint(rsnn.models.ResNet18((64, 64, 3), **options), path)
    report = from_checkpoint(path, verbose=False).checkpoint_report
    assert report.network == "rate_backpropagation"
