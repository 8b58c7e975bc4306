"""k-bit quantisation: with retraining, or after training from the ranges of calibration records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from edgeward.core.errors import ConfigError, DataError, ModelError
from edgeward.train.population import Population
from edgeward.transforms.convolution import ill_padded
from edgeward.transforms.quantized_layers import QuantConv2d as QuantConv2d
from edgeward.transforms.quantized_layers import Quantized, quantized_layer
from edgeward.transforms.quantized_layers import QuantLinear as QuantLinear
from edgeward.transforms.transform import (
    EDGES,
    TRANSFORMS,
    Transform,
    refresh,
    refuse,
    replace_layers,
    targets,
)


def _quantize(
    module: nn.Module, skip: tuple[str, ...], weight_bits: int, activation_bits: int, edges_bits: int = 32
) -> nn.Module:
    """Replace layers by k-bit layers: those not skipped, and at `edges_bits` the skipped first and last."""
    inner = targets(module, [name for name in skip if name in EDGES], subclasses=True)
    chosen = targets(module, skip, subclasses=True)
    every = targets(module, (), subclasses=True)
    edges = {name: layer for name, layer in every.items() if name not in inner and edges_bits < 32}
    refuse("quantisation", ill_padded({**chosen, **edges}), "change the padding of the layers above")
    new: dict[str, nn.Module] = {name: quantized_layer(layer, edges_bits, 32) for name, layer in edges.items()}
    if weight_bits < 32:
        new.update({name: quantized_layer(layer, weight_bits, activation_bits) for name, layer in chosen.items()})
    return replace_layers(module, new)


def _check(kind: str, weight_bits: int, activation_bits: int) -> None:
    """Refuse widths that no k-bit layer has."""
    fits = 2 <= weight_bits <= 8 and (2 <= activation_bits <= 8 or activation_bits == 32)
    if not fits and (weight_bits, activation_bits) != (32, 32):
        raise ConfigError(
            f"{kind}: no k-bit layer has these widths",
            expected="weight_bits 2 to 8 with activation_bits 2 to 8 or 32; or 32 and 32",
            came=f"weight_bits {weight_bits}, activation_bits {activation_bits}",
            fix="use 8 and 8",
        )


@TRANSFORMS.register("quantize_aware")
@final
@dataclass(frozen=True)
class QuantizeAware(Transform):
    """Round weights and inputs while training, so that the network learns to live with it.

    Args:
        weight_bits: 2 to 8, symmetric, one scale per output channel.
        activation_bits: 2 to 8, affine, one scale per tensor; 32 leaves inputs in float.
        skip: layers left alone or, if first or last, kept at `edges_bits`.
        edges_bits: weight width of skipped first and last layers (inputs in float); 32 leaves them in float.

    Widths 32 and 32 change nothing, exactly. Train with the part `FreshScales`.
    Source: Jacob et al., CVPR 2018, section 3 (rounding in training); Max, 1960 (few-bit steps).
    """

    slug: ClassVar[str] = "quantize_aware"
    needs: ClassVar[frozenset[str]] = frozenset({"retraining"})

    weight_bits: int = 4
    activation_bits: int = 8
    skip: tuple[str, ...] = EDGES
    edges_bits: int = 8

    def __post_init__(self) -> None:
        """Refuse widths that no layer has."""
        _check(self.slug, self.weight_bits, self.activation_bits)
        _check(f"{self.slug}.edges_bits", self.edges_bits, 32)

    @property
    def lossless(self) -> bool:
        return self.weight_bits == self.activation_bits == self.edges_bits == 32

    def apply(self, module: nn.Module) -> nn.Module:
        return _quantize(module, self.skip, self.weight_bits, self.activation_bits, self.edges_bits)


@TRANSFORMS.register("post_training")
@final
@dataclass(frozen=True)
class PostTraining(Transform):
    """Round weights and inputs of a trained network; input ranges come from `calibrate`.

    Args:
        weight_bits: 2 to 8, symmetric, one scale per output channel.
        activation_bits: 2 to 8, affine, one scale per tensor; 32 leaves inputs in float.
        skip: layers left in float.

    Source: Krishnamoorthi, 2018 (arXiv 1806.08342), section 3.
    """

    slug: ClassVar[str] = "post_training"
    needs: ClassVar[frozenset[str]] = frozenset({"calibration"})

    weight_bits: int = 8
    activation_bits: int = 8
    skip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse widths that no layer has."""
        _check(self.slug, self.weight_bits, self.activation_bits)

    @property
    def lossless(self) -> bool:
        return self.weight_bits == self.activation_bits == 32

    def apply(self, module: nn.Module) -> nn.Module:
        return _quantize(module, self.skip, self.weight_bits, self.activation_bits)


def _observed(population: Population) -> Iterator[tuple[str, Quantized]]:
    """Yield the k-bit layers that round their inputs, with the prefix of their state."""
    for name, layer in population.template.named_modules():
        if isinstance(layer, Quantized) and layer.activation_bits < 32:
            yield f"{name}." if name else "", layer


@torch.no_grad()
def calibrate(
    population: Population,
    x: Float[Tensor, "n ..."],
    *,
    rows: Int[Tensor, "S k"] | None = None,
    percentile: float = 100.0,
    chunk: int = 256,
) -> None:
    """Set every input range from float runs on calibration records, per model, and freeze it for evaluation.

    Args:
        x: records; they leave a trace in the ranges, so private records that must not leak belong here only if they
            are training records of that very model anyway.
        rows: which of them each model is calibrated on; by default every model on all.
        percentile: 100 covers the extremes; for instance 99.9 cuts the tails of every chunk and averages over chunks.

    Raises: `DataError` for no or non-finite records, `ConfigError` for a percentile outside (50, 100].
    """
    if not 50 < percentile <= 100:
        raise ConfigError("calibration percentile", expected="in (50, 100]", came=str(percentile), fix="use 99.9")
    _check_records(len(population), x if rows is None else x[torch.unique(rows)], rows)
    refresh(population)
    layers = list(_observed(population))
    for prefix, layer in layers:
        layer.mode, layer.percentile = "observe", percentile
        for key in ("low", "high", "seen"):
            population.buffers[f"{prefix}activation_{key}"].zero_()
    try:
        parts = torch.split(x, chunk) if rows is None else (x[some] for some in torch.split(rows, chunk, 1))
        for part in parts:
            population.forward(part.to(population.device), training=False, per_model=rows is not None)
    finally:
        for _, layer in layers:
            layer.mode, layer.percentile = "quantize", 100.0
    refresh(population)  # the weights' steps follow from those of the inputs


def _check_records(models: int, x: Tensor, rows: Tensor | None) -> None:
    """Refuse records that give no range."""
    if len(x) == 0 or not bool(torch.isfinite(x).all()):
        came = "no record" if len(x) == 0 else "NaN or infinity"
        raise DataError("calibration records", expected="finite records", came=came, fix="give some training records")
    if rows is not None and len(rows) != models:
        expected, came = f"one row of indices for each of {models} models", f"{len(rows)} rows"
        raise DataError("calibration records", expected=expected, came=came, fix="give the training records of each")


def require_calibrated(population: Population) -> None:
    """Raise `ModelError` naming every layer whose input range was never observed in some model."""
    seen = {prefix: population.buffers[f"{prefix}activation_seen"] for prefix, _ in _observed(population)}
    missing = [prefix.rstrip(".") or "the network" for prefix, count in seen.items() if bool((count == 0).any())]
    if missing:
        raise ModelError(
            f"{len(missing)} layers round inputs whose range was never observed",
            expected="ranges from training or from `calibrate`",
            came=", ".join(missing[:8]),
            fix="call transforms.calibrate(population, records) first",
        )
