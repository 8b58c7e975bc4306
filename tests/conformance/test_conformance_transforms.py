"""The wall every transform stands behind: shapes, state, determinism, losslessness, siblings, gradients, export."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from edgeward.core.randomness import Seed
from edgeward.graph import capture_program
from edgeward.train.population import Factory, Population, build
from edgeward.transforms import TRANSFORMS, Transform, calibrate, refresh, transform_population
from edgeward.transforms.transform import NEEDS, Derived
from transforms.transform_networks import NETWORKS, population, records

LOSSLESS = {
    "quantize_aware": {"weight_bits": 32, "activation_bits": 32, "edges_bits": 32},
    "post_training": {"weight_bits": 32, "activation_bits": 32},
    "factorize": {"fraction": 1.0, "skip": ()},
}
FURTHER = {
    "binarize": [{"skip": ("first", "depthwise"), "edges_bits": 8, "rule": "clip"}],
    "quantize_aware": [{"weight_bits": 2, "activation_bits": 4}, {"weight_bits": 3, "activation_bits": 32}],
    "post_training": [{"weight_bits": 8, "activation_bits": 32}],
    "factorize": [{"fraction": 0.6, "skip": ()}],
}


DEFAULTS = [TRANSFORMS[slug]() for slug in TRANSFORMS]
OTHERS = [
    TRANSFORMS[slug](**settings)
    for slug in TRANSFORMS
    for settings in [*FURTHER.get(slug, ()), *([LOSSLESS[slug]] if slug in LOSSLESS else [])]
]
CASES = [
    *(pytest.param(t, *NETWORKS[name], id=f"{name}-{t.slug}") for t in DEFAULTS for name in NETWORKS),
    *(pytest.param(t, *NETWORKS["vgg"], id=f"vgg-{number}-{t.slug}") for number, t in enumerate(OTHERS)),
]
over_cases = pytest.mark.parametrize(("transform", "factory", "shape"), CASES)


def ready(transform: Transform, factory: Factory, shape: tuple[int, ...]) -> tuple[Population, Factory]:
    """Return transformed models whose statistics and ranges have been trained a little."""
    models, changed = transform_population(population(factory, settle=shape), factory, transform)
    for step in range(2):
        with torch.no_grad():
            models.forward(records(shape, 16, step), training=True, per_model=False)
    calibrate(models, records(shape, 16))
    return models, changed


@over_cases
def test_declaration_shapes_and_state(transform: Transform, factory: Factory, shape: tuple[int, ...]) -> None:
    assert TRANSFORMS[transform.slug] is type(transform)
    assert transform.needs <= NEEDS
    models, changed = ready(transform, factory, shape)
    x = records(shape)
    y = models.logits(x)
    assert y.shape == (3, 5, factory().eval()(x).shape[1])
    assert torch.isfinite(y).all()
    state = models.state(1)
    other = build(changed, Seed(99))
    other.load_state_dict(state, strict=True)
    assert other.state_dict().keys() == state.keys()
    assert torch.equal(other.eval()(x), models.member(1, changed)(x))


@over_cases
def test_same_seed_same_network(transform: Transform, factory: Factory, shape: tuple[int, ...]) -> None:
    first, second = (build(transform.wrap(factory), Seed(4)).eval() for _ in range(2))
    x = records(shape)
    assert torch.equal(first(x), second(x))
    kept = {n: p for n, p in build(factory, Seed(4)).named_parameters() if n in dict(first.named_parameters())}
    assert all(torch.equal(first.get_parameter(name), tensor) for name, tensor in kept.items())


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("slug", sorted(set(TRANSFORMS)))
def test_lossless_settings_keep_outputs(slug: str, name: str) -> None:
    factory, shape = NETWORKS[name]
    if slug not in LOSSLESS:
        assert not TRANSFORMS[slug]().lossless
        return
    transform = TRANSFORMS[slug](**LOSSLESS[slug])
    assert transform.lossless
    assert not TRANSFORMS[slug]().lossless
    models = population(factory, settle=shape)
    changed, _ = transform_population(models, factory, transform)
    x = records(shape)
    if slug == "factorize":
        torch.testing.assert_close(changed.logits(x), models.logits(x), rtol=1e-4, atol=1e-5)
    else:
        assert torch.equal(changed.logits(x), models.logits(x))


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {n: p.grad if p.grad is not None else torch.zeros_like(p) for n, p in module.named_parameters()}


@over_cases
@pytest.mark.parametrize("training", [True, False])
def test_siblings_equal_separate_modules(
    transform: Transform, factory: Factory, shape: tuple[int, ...], training: bool
) -> None:
    """Outputs, gradients and updated buffers of a population of three, against three modules one by one."""
    models, changed = ready(transform, factory, shape)
    separate = [models.member(index, changed).train(training) for index in range(3)]
    for tensor in models.params.values():
        tensor.requires_grad_()
    x, g = records(shape, 16, 7), records((separate[0](records(shape, 2)).shape[1],), 16, 8)
    separate = [models.member(index, changed).train(training) for index in range(3)]
    y = models.forward(x, training=training, per_model=False)
    (y * g).sum().backward()
    for index, module in enumerate(separate):
        alone = module(x)
        (alone * g).sum().backward()
        torch.testing.assert_close(y[index], alone, rtol=1e-4, atol=1e-4)
        for name, gradient in gradients(module).items():
            stacked = models.params[name].grad[index]
            torch.testing.assert_close(stacked, gradient, rtol=2e-3, atol=2e-4 * float(gradient.abs().max() + 1))
        for name, buffer in module.named_buffers():
            torch.testing.assert_close(models.buffers[name][index], buffer, rtol=1e-4, atol=1e-5)


@over_cases
def test_gradient_reaches_every_parameter(transform: Transform, factory: Factory, shape: tuple[int, ...]) -> None:
    models, changed = ready(transform, factory, shape)
    module = models.member(0, changed).train()
    (module(records(shape, 16)).square().sum(1)).sum().backward()
    # A bias before a BatchNorm in training has no gradient of its own; weights always have.
    weights = {name: p.grad for name, p in module.named_parameters() if name.endswith("weight")}
    assert all(grad is not None and bool(torch.isfinite(grad).all()) for grad in weights.values())
    assert all(float(grad.abs().max()) > 0 for grad in weights.values()), weights.keys()


@over_cases
def test_exported_network_equals_eager_with_one_node_per_layer(
    transform: Transform, factory: Factory, shape: tuple[int, ...]
) -> None:
    models, changed = ready(transform, factory, shape)
    refresh(models)
    module = models.member(0, changed)
    x = records(shape, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.export warns about its own internals
        program = torch.export.export(module, (x,), dynamic_shapes=({0: Dim.DYNAMIC},))
        assert torch.equal(program.module()(x), module(x))
        network = capture_program(program.run_decompositions({}))
    special = [node.layer for node in network.nodes if node.operator.startswith(("binary", "quantized"))]
    expected = [name for name, layer in module.named_modules() if isinstance(layer, Derived) and _active(layer)]
    assert sorted(special) == sorted(expected)
    network.with_tensors(models.state(1))


def _active(layer: nn.Module) -> bool:
    return getattr(layer, "weight_bits", 1) < 32


def test_stored_scales_are_those_of_the_loaded_weights() -> None:
    """A state dict that was refreshed carries scales that equal those derived from its weights."""
    factory, shape = NETWORKS["vgg"]
    for transform in [*DEFAULTS, *OTHERS]:
        models, changed = ready(transform, factory, shape)
        refresh(models)
        for layer in models.member(2, changed).modules():
            if isinstance(layer, Derived):
                for name, value in layer.derive(layer.weight.detach()).items():
                    torch.testing.assert_close(layer.get_buffer(name), value, rtol=1e-6, atol=0)
