"""The published weights edgeward knows: where they come from, what they saw, and which layer each tensor belongs to."""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import partial
from typing import Final

import numpy as np
import torch

from edgeward.data.files import SourceFile, damaged
from edgeward.data.npz import read_npz
from edgeward.nets.ds_cnn import ds_cnn
from edgeward.nets.mobilenet_v1 import mobilenet_v1
from edgeward.nets.pretrained import PRETRAINED, Pretrained, State
from edgeward.nets.resnet import resnet
from edgeward.nets.resnet_tiny import resnet_tiny
from edgeward.nets.standardize import IMAGENET_MEAN, IMAGENET_STD

_RESNETS: Final = {
    20: ("resnet20-12fca82f.th", "12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8"),
    32: ("resnet32-d509ac18.th", "d509ac1820d7f25398913559d7e81a13229b1e7adc5648e3bfa5e22dc137f850"),
    44: ("resnet44-014dd654.th", "014dd6541728a1c700b1642ab640e211dc6eb8ed507d70697458dc8f8a0ae2e4"),
}
_IMAGENET: Final = {
    "0.25": (128, "025da4205828fc4fd5cb5164ea649dc93e12d7771af4fec37bf6123137c5e3d8"),
    "0.5": (160, "7edb5beae8f5cbfc6dc67f0de54010924761deee01c58591050619fb281e44e1"),
    "0.75": (192, "bc8393ea854a5c9981257da5bc1c17e356b5a9b0a9ae781a60123ba5f4b35afc"),
}
_AKAMASTER: Final = "github.com/akamaster/pytorch_resnet_cifar10, folder pretrained_models"
_TINY: Final = "github.com/mlcommons/tiny, benchmark/training/{}, its tensors as .npz in PyTorch's layout"
_CORAL: Final = (
    "github.com/google-coral/test_data, mobilenet_v1_*_quant.tflite, its tensors as .npz in PyTorch's layout"
)
_APACHE: Final = "Apache-2.0"


def _checkpoint(data: bytes, name: str) -> State:
    """Read a checkpoint of the data-parallel training script: {"state_dict": {"module.<key>": tensor}}."""
    try:
        stored = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        return {key.removeprefix("module."): tensor for key, tensor in stored["state_dict"].items()}
    except Exception as error:  # a damaged archive fails in many ways
        raise damaged(name, "a PyTorch checkpoint of tensors", type(error).__name__) from None


def _arrays(data: bytes, name: str, layers: Mapping[str, str], *, gain: float = 1.0) -> State:
    """Read `<stored>.weight` and `<stored>.bias` as those of our layers; `gain` scales the first layer's weights.

    `layers` maps stored names to ours, in order. Weights stored as integers come with a scale and a zero point.
    """
    arrays, state = read_npz(data, name), {}
    for place, (stored, ours) in enumerate(layers.items()):
        weight = arrays[f"{stored}.weight"].astype(np.float64)
        if f"{stored}.weight_scale" in arrays:
            per_output = (-1, *[1] * (weight.ndim - 1))
            zero = arrays[f"{stored}.weight_zero_point"].reshape(per_output)
            weight = (weight - zero) * arrays[f"{stored}.weight_scale"].astype(np.float64).reshape(per_output)
        weight = weight * gain if place == 0 else weight
        state[f"{ours}.weight"] = torch.from_numpy(weight.astype(np.float32))
        state[f"{ours}.bias"] = torch.from_numpy(arrays[f"{stored}.bias"].astype(np.float32))
    return state


def _on_unit_pixels(data: bytes, name: str, layers: Mapping[str, str]) -> State:
    """Read features trained on pixels in [-1, 1] for pixels in [0, 1], with the head left out.

    The first layer takes the scaling in: exact but for the last row and column, where its padding is black, not grey.
    """
    state = {key: tensor for key, tensor in _arrays(data, name, layers).items() if not key.startswith("classifier.")}
    stem = next(iter(layers.values()))
    weight = state[f"{stem}.weight"]
    state[f"{stem}.bias"] = state[f"{stem}.bias"] - weight.sum((1, 2, 3))
    state[f"{stem}.weight"] = 2 * weight
    return state


def _separable(blocks: int) -> tuple[str, ...]:
    """Return our layers of a separable network in order."""
    pairs = [f"features.{k}.{part}.conv" for k in range(1, blocks + 1) for part in ("dw", "pw")]
    return ("features.0.conv", *pairs, "classifier")


def _numbered(ours: tuple[str, ...], numbers: tuple[int, ...]) -> dict[str, str]:
    """Give our layers the names op00, op01, ... of the operators of a file."""
    return {f"op{number:02d}": layer for number, layer in zip(numbers, ours, strict=True)}


def _coral() -> dict[str, str]:
    return {layer.removesuffix(".conv"): layer for layer in _separable(13)}


_STRIDED: Final = ("first.0", "second.0", "shortcut")
_RESIDUAL: Final = (
    *("stem.0", "block1.first.0", "block1.second.0"),
    *(f"block2.{part}" for part in _STRIDED),
    *(f"block3.{part}" for part in _STRIDED),
)

for _depth, (_file, _digest) in _RESNETS.items():
    PRETRAINED.register(f"resnet{_depth}_cifar10")(
        Pretrained(
            SourceFile((f"weights/{_file}",), (_digest,), _AKAMASTER),
            partial(resnet, _depth, mean=IMAGENET_MEAN, std=IMAGENET_STD),
            partial(_checkpoint, name=_file),
            input_shape=(3, 32, 32),
            classes=10,
            trained_on="all 50000 training images of CIFAR-10",
            licence="BSD-style (LICENSE of that repository)",
        )
    )

for _width, (_size, _digest) in _IMAGENET.items():
    _file = f"mobilenet_v1_{_width}_{_size}_quant.npz"
    PRETRAINED.register(f"mobilenet_v1_{_width}_imagenet")(
        Pretrained(
            SourceFile((f"weights/{_file}",), (_digest,), _CORAL),
            partial(mobilenet_v1, float(_width), norm=False, mean=(0.5,) * 3, std=(0.5,) * 3),
            partial(_arrays, name=_file, layers=_coral()),
            input_shape=(3, _size, _size),
            classes=1000,
            trained_on="ImageNet (ILSVRC 2012)",
            licence=_APACHE,
        )
    )

PRETRAINED.register("mobilenet_v1_vww")(
    Pretrained(
        SourceFile(
            ("mlperf-tiny/vww_mobilenetv1_0.25_96_float.npz",),
            ("610763db3f3550460046a3a036800c7554203d8280940c250d8480cd105ba3c1",),
            _TINY.format("visual_wake_words/trained_models/vww_96_float.tflite"),
        ),
        partial(mobilenet_v1, 0.25, classes=2, norm=False, rectifier="relu"),
        partial(_arrays, name="vww_mobilenetv1_0.25_96_float.npz", layers=_numbered(_separable(13), (*range(27), 29))),
        input_shape=(3, 96, 96),
        classes=2,
        trained_on="Visual Wake Words, training part (COCO photos)",
        licence=_APACHE,
    )
)

# A public relative of the person detector: the same tensors, but the rectifier capped as it was trained. Without the
# cap its features lose about 5 points (linear probe).
PRETRAINED.register("mobilenet_v1_vww_public")(
    Pretrained(
        SourceFile(("weights/mobilenet_v1_0.25_128_quant.npz",), (_IMAGENET["0.25"][1],), _CORAL),
        partial(mobilenet_v1, 0.25, classes=2, norm=False),
        partial(_on_unit_pixels, name="mobilenet_v1_0.25_128_quant.npz", layers=_coral()),
        input_shape=(3, 96, 96),
        classes=2,
        trained_on="ImageNet (ILSVRC 2012); the head on nothing",
        licence=_APACHE,
        fresh=("classifier.weight", "classifier.bias"),
    )
)

PRETRAINED.register("ds_cnn_kws")(
    Pretrained(
        SourceFile(
            ("mlperf-tiny/kws_dscnn_float.npz",),
            ("d54ba7ef06394b075b87202d4fcb8745ddb3d6f0e820e1445da0fe843c6fd7ec",),
            _TINY.format("keyword_spotting/trained_models/kws_ref_model_float32.tflite"),
        ),
        partial(ds_cnn, norm=False),
        partial(_arrays, name="kws_dscnn_float.npz", layers=_numbered(_separable(4), (*range(9), 11))),
        input_shape=(1, 49, 10),
        classes=12,
        trained_on="Speech Commands v2, training part",
        licence=_APACHE,
        inputs="MFCC [1, 49 frames, 10 coefficients], unscaled",
    )
)

PRETRAINED.register("resnet_tiny_cifar10")(
    Pretrained(
        SourceFile(
            ("mlperf-tiny/resnet8_cifar10_float.npz",),
            ("d3e3e77c322f1bc3b1729f0db2b75c473892e46082537a8247853fce4421c206",),
            _TINY.format("image_classification/trained_models/pretrainedResnet.tflite"),
        ),
        partial(resnet_tiny, norm=False),
        # The authors gave the network pixels from 0 to 255.
        partial(
            _arrays,
            name="resnet8_cifar10_float.npz",
            layers=_numbered((*_RESIDUAL, "classifier"), (0, 1, 2, 4, 5, 6, 8, 9, 10, 14)),
            gain=255.0,
        ),
        input_shape=(3, 32, 32),
        classes=10,
        trained_on="the training images of CIFAR-10",
        licence=_APACHE,
    )
)
