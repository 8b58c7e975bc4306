"""Closed forms of what protocols send: against the sources' own formulas and figures, and against our meters."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from backends.mpc.whole_runs import drawn, seeded
from edgeward.backends.mpc.costs import COST_MODELS, Cheetah, DealerModel, Replicated, SciHe, SciOt
from edgeward.backends.mpc.costs.cheetah import convolution_polynomials
from edgeward.backends.mpc.costs.homomorphic import convolution_ciphertexts, sign_bits
from edgeward.backends.mpc.costs.oblivious import comparison_bits, product_bits, relu_bits
from edgeward.backends.mpc.costs.work import Image, Product, work_of
from edgeward.backends.mpc.inference.expense import cost_table
from edgeward.backends.mpc.inference.lowering import lower
from edgeward.backends.mpc.inference.simulation import simulate
from edgeward.backends.mpc.replicated.simulation import cost_tables
from edgeward.backends.mpc.transport.network import Network as Link
from edgeward.core.errors import ConfigError, UnsupportedOperators
from edgeward.graph import capture
from edgeward.nets import densenet_imagenet, resnet_imagenet, vit
from edgeward.transforms.rewrite import WinogradTiles


def small():
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Linear(6, 2),
    )


@pytest.fixture(scope="module")
def network():
    return capture(seeded(small), (3, 8, 8))


@pytest.mark.parametrize("slug", COST_MODELS)
def test_every_protocol_prices_every_layer_of_a_batch(slug, network):
    one, three = (COST_MODELS[slug]().prices(network, records) for records in (1, 3))
    assert one.protocol == slug
    assert 0 < one.total.bytes < three.total.bytes <= 3 * one.total.bytes + 64
    assert one.total.rounds == three.total.rounds > 0
    assert one.total.bytes == sum(row.bytes for row in one.rows) == sum(r.bytes for r in one.by_operator().values())
    assert one.to_json(Link("slow", 1e6, 0.1))["total"]["seconds"] == one.seconds(Link("slow", 1e6, 0.1))
    assert COST_MODELS[slug].trust.startswith("semi-honest")


@pytest.mark.parametrize("slug", sorted(set(COST_MODELS) - {"dealer", "3pc"}))
def test_an_operator_without_a_closed_form_is_named(slug):
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.GELU(), nn.Flatten(), nn.Softmax(1)).eval()
    with pytest.raises(UnsupportedOperators, match=r"(?s)gelu.*softmax"):
        COST_MODELS[slug]().prices(capture(module, (1, 5, 5)))


def test_the_dealers_prices_are_what_the_plan_declares_and_the_meters_count(network):
    lowered = lower(network, 2)
    declared, found = cost_table(lowered.plan), DealerModel().prices(network, 2)
    run = simulate(lowered, drawn((3, 8, 8), 2))
    for row, ours, metered in zip(declared.rows, found.rows, run.metered[0].rows, strict=True):
        assert (ours.name, ours.layer, ours.operator) == (row.label, row.layer, row.operator)
        assert (ours.bytes, ours.rounds) == (2 * metered.online.bytes, metered.online.rounds)
        assert (ours.offline, ours.setup) == (metered.offline, 2 * metered.setup.bytes + metered.offline_setup)
    assert found.total.macs == 2 * (4 * 64 * 27 + 6 * 4 * 18 + 12)


def test_work_counts_products_comparisons_and_truncations(network):
    work = {w.operator: w for w in work_of(network, 2) if w.operator != "conv2d"}
    convolutions = [w for w in work_of(network, 2) if w.operator == "conv2d"]
    assert [w.products for w in convolutions] == [(Product(4, 27, 128),), (Product(3, 18, 8, 2),)]
    assert [w.truncated for w in convolutions] == [2 * 4 * 64, 2 * 6 * 4]
    assert work["relu"].rectified == 2 * 4 * 64
    assert work["clip"].rectified == 2 * 2 * 6 * 4
    assert (work["max_pool2d"].maxima, work["max_pool2d"].levels) == (2 * 4 * 16 * 3, 3)
    assert work["linear"].products == (Product(2, 6, 2),)


@pytest.mark.parametrize(("tile", "share"), [(2, 16 / 36), (4, 36 / 144)])
def test_winograd_tiles_save_products_only_where_products_are_sent(tile, share):
    plain = capture(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()).eval(), (8, 16, 16))
    tiled = WinogradTiles(tile).apply(plain)
    (direct, by_tiles) = (work_of(network)[0].products[0].macs for network in (plain, tiled))
    assert by_tiles == share * direct
    sci = SciOt(chooser="values", fraction=12)
    assert sci.prices(tiled).total.bytes < sci.prices(plain).total.bytes
    ours = [DealerModel().prices(network).total for network in (plain, tiled)]
    assert (ours[0].bytes, ours[0].rounds) == (ours[1].bytes, ours[1].rounds)
    assert ours[1].macs == share * ours[0].macs


@given(st.integers(4, 64))
def test_comparisons_stay_below_the_published_bounds(bits):
    assert comparison_bits(bits) < (128 + 14) * (bits + 4)
    assert relu_bits(max(bits, 8)) < (128 + 18) * (max(bits, 8) + 4)
    assert sign_bits(bits + 8) < (1.5 * 128 + 27) * (bits + 13)


@pytest.mark.parametrize("bits", [32, 64])
def test_comparisons_of_whole_digits_meet_the_published_bounds(bits):
    assert comparison_bits(bits) < (128 + 14) * bits
    assert relu_bits(bits) < (128 + 18) * bits


@given(
    st.builds(Product, st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(1, 3)), st.integers(8, 64)
)
def test_a_product_costs_what_the_librarys_own_cost_function_says(product, bits):
    """The formula of LinearOT/linear-ot.cpp, with m = bits of the choosing operand and l = bits of the ring."""

    def cross_term_cost(dim1, dim2, dim3, m, l):  # noqa: E741
        return dim1 * dim2 * (m * 128 + dim3 * (m * (l - m) + (m * m + m) / 2))

    p = product
    by_weights = p.count * cross_term_cost(p.rows, p.inner, p.columns, bits, bits)
    by_values = p.count * cross_term_cost(p.columns, p.inner, p.rows, bits, bits)
    assert product_bits(p, bits, "weights") == by_weights
    assert product_bits(p, bits, "values") == by_values
    assert product_bits(p, bits, "cheaper") == min(by_weights, by_values)
    assert product_bits(p, bits, "alternating") == (by_weights + by_values) // 2


def test_ciphertexts_are_packed_as_the_library_packs_them():
    """14 x 14 pixels take 256 slots; half of 8192 holds 16 channels; 3x3 windows pad to 16 x 16, still 256."""
    image = Image(1, 256, 64, (16, 16), (3, 3), (1, 1), 1, (14, 14))
    (packed,) = convolution_ciphertexts(image)
    assert (packed.slots, packed.sent, packed.returned) == (8192, 8, 2)
    assert packed.bytes == 2 * 8192 * 8 * (8 * 3 + 2 * 2)
    strided = Image(1, 3, 64, (230, 230), (7, 7), (2, 2), 1, (112, 112))
    assert [(p.slots, p.sent, p.returned) for p in convolution_ciphertexts(strided)] == [(32768, 2, 32)] * 4


def test_polynomials_hold_blocks_of_pixels():
    pointwise = convolution_polynomials(Image(1, 64, 128, (16, 16), (1, 1), (1, 1), 1, (16, 16)))
    assert pointwise.sent * 4096 >= 64 * 256
    assert pointwise.values == 128 * 256
    assert convolution_polynomials(Image(2, 64, 128, (16, 16), (1, 1), (1, 1), 1, (16, 16))).bytes == (
        2 * pointwise.bytes
    )


@pytest.mark.parametrize("build", [small, lambda: vit(size=8, dimension=16, depth=1, heads=2)])
def test_the_prices_of_three_parties_are_the_sum_of_what_they_declare(build):
    network = capture(seeded(build), (3, 8, 8))
    tables, found = cost_tables(lower(network, 2).plan), Replicated().prices(network, 2)
    assert found.total.bytes == sum(table.online.bytes for table in tables)
    assert found.total.setup == sum(table.setup.bytes for table in tables)
    assert found.total.rounds == max(table.online.rounds for table in tables)
    assert [row.name for row in found.rows] == [row.label for row in tables[0].rows]
    assert found.total.macs == 2 * DealerModel().prices(network, 2).total.macs


@pytest.mark.parametrize("make", [lambda: SciOt(bits=7), lambda: SciHe(bits=61), lambda: Cheetah(fraction=0)])
def test_impossible_settings_are_refused(make):
    with pytest.raises(ConfigError, match="expected"):
        make()


@pytest.mark.slow
def test_published_totals_are_met_within_15_percent():
    """3 TB and 217.19 GB of a DenseNet-121 at 320 and 224 pixels, 370.84 GB of a ResNet-50, all with SCI_OT."""
    with torch.no_grad():
        xray = capture(densenet_imagenet(121, classes=14).eval(), (3, 320, 320))
        dense = capture(densenet_imagenet(121).eval(), (3, 224, 224))
        residual = capture(resnet_imagenet(50).eval(), (3, 224, 224))
    shared = SciOt(bits=64, weights="shared", chooser="cheaper")
    assert shared.prices(xray).total.bytes == pytest.approx(3e12, rel=0.15)
    assert SciOt(bits=32).prices(dense).total.bytes == pytest.approx(217.19e9, rel=0.15)
    assert SciOt(bits=37).prices(residual).total.bytes == pytest.approx(370.84e9, rel=0.15)
