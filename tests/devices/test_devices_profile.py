"""Profiles: what is shipped validates and names its sources; the rules that fill gaps are the stated ones."""

from dataclasses import replace

import pytest

from edgeward.core.errors import ConfigError
from edgeward.devices import Figure, devices, load_profile, weakest
from edgeward.devices.figure import BASES
from edgeward.devices.profile import OPERATOR_CLASSES, PRECISIONS


@pytest.mark.parametrize("name", devices())
def test_shipped_profile_names_a_source_for_every_number(name):
    profile = load_profile(name)
    assert profile.name == name
    figures = list(profile.figures())
    assert len(figures) >= 10
    for label, _, figure in figures:
        assert figure.source.strip(), label
        assert figure.basis in BASES, label
        assert figure.value > 0, label
        assert "from memory" not in figure.source


@pytest.mark.parametrize("name", devices())
def test_shipped_profile_answers_every_rate_and_is_ordered_sensibly(name):
    profile = load_profile(name)
    for precision in PRECISIONS:
        for operator_class in OPERATOR_CLASSES:
            assert profile.rate(precision, operator_class).value > 0
        assert profile.rate(precision, "depthwise").value < profile.rate(precision, "pointwise").value
    assert profile.rate("binary", "pointwise").value > profile.rate("float32", "pointwise").value
    assert 0.01 < profile.active_power_watt().value < 30


def test_the_listed_devices_are_there():
    wanted = {"cortex-m4", "cortex-m7", "cortex-m33", "rpi3", "rpi4", "rpi5", "phone-cpu", "x86-laptop"}
    assert wanted <= set(devices())


def test_microcontrollers_have_flash_and_the_others_load_weights_into_ram():
    for name in devices():
        profile = load_profile(name)
        assert (profile.flash_bytes is not None) == (profile.kind == "mcu")


def test_board_energy_of_the_cortex_m4_is_the_published_energy_per_inference():
    profile = load_profile("cortex-m4")
    # 6919.375 uJ for 12.502 MMAC; 41.9 mW = 6919.375 uJ x 6.056 inferences/s
    assert profile.picojoule_per_mac.value == pytest.approx(6919.375e-6 / 12.501632e6 * 1e12, rel=1e-3)
    assert profile.active_power_watt().value == pytest.approx(6919.375e-6 * 6.056, rel=0.02)


def test_missing_rates_follow_the_stated_rules_and_are_marked_derived():
    full = load_profile("cortex-m4")
    conv = Figure(80e6, "a board", "published")
    only_int8 = replace(full, mac_per_second={"int8": {"conv": conv}})
    assert only_int8.rate("int8", "conv") is conv
    assert only_int8.rate("int8", "pointwise") == Figure(80e6, "a board; pointwise taken as conv x 1", "derived")
    assert only_int8.rate("int8", "depthwise").value == pytest.approx(16e6)
    assert only_int8.rate("float32", "conv").value == pytest.approx(80e6 / 3)
    assert only_int8.rate("binary", "conv").value == pytest.approx(80e6)
    only_float = replace(full, mac_per_second={"float32": {"pointwise": conv}})
    assert only_float.rate("int8", "linear").value == pytest.approx(80e6)
    assert only_float.rate("binary", "depthwise").value == pytest.approx(16e6)
    assert all(only_float.rate(p, "conv").basis == "derived" for p in PRECISIONS)


def test_a_profile_built_by_hand_says_what_it_lacks():
    full = load_profile("cortex-m4")
    with pytest.raises(ConfigError, match="no mac_per_second"):
        replace(full, mac_per_second={"binary": {"conv": Figure(1e9, "a board", "published")}}).rate("int8", "conv")
    with pytest.raises(ConfigError, match="no energy"):
        replace(full, picojoule_per_mac=None).active_power_watt()


def test_weakest_basis():
    strong, weak = Figure(1.0, "a", "measured"), Figure(1.0, "a", "derived")
    assert weakest([strong, weak, strong]) == "derived"
    assert weakest([strong]) == "measured"
    assert weakest([strong, weak, Figure(1.0, "c", "assumed")]) == "assumed"
    assert weakest([]) == "assumed"
    assert Figure(1.0, "c", "assumed").scaled(2, "twice").basis == "assumed"


def test_plain_form_holds_every_figure_with_its_source():
    profile = load_profile("rpi4")
    plain = profile.to_json()
    assert plain["flash_bytes"] is None
    assert plain["mac_per_second"]["float32"]["conv"] == profile.rate("float32", "conv").to_json()
    figures = [f for _, _, f in profile.figures()]
    in_plain = [v for v in plain.values() if isinstance(v, dict) and "value" in v]
    in_plain += [f for rates in plain["mac_per_second"].values() for f in rates.values()]
    assert len(in_plain) == len(figures)


def test_description_shows_basis_and_source_of_every_number():
    profile = load_profile("cortex-m7")
    rows = dict(profile.describe())
    assert rows["clock"].startswith("280.0 MHz (published: MLPerf Tiny v1.2")
    for label, _, figure in profile.figures():
        assert f"({figure.basis}: {figure.source})" in rows[label]


def test_unknown_device_suggests_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'cortex-m7'") as caught:
        load_profile("cortex-m8")
    assert "rpi4" in caught.value.expected
