"""Secure worlds in profiles: read with their sources, inherited, refused with every problem, listed by `describe`."""

from importlib.resources import files

import pytest

from edgeward.core.errors import ConfigError
from edgeward.devices import devices, load_profile
from edgeward.devices.reading import parse_profile
from edgeward.devices.secure_world import ISOLATIONS, SECURE_OPERATOR_CLASSES

SECURE = [name for name in devices() if load_profile(name).secure_world is not None]
GOOD = (files("edgeward.devices") / "profiles" / "qemu-v8.toml").read_text(encoding="utf-8")


def test_the_listed_secure_worlds_are_there():
    assert {"rpi3-optee", "rpi5-optee", "qemu-v8", "hikey960", "imx8m", "stm32mp1", "zynqmp"} <= set(SECURE)


@pytest.mark.parametrize("name", SECURE)
def test_every_figure_names_its_source_and_basis(name):
    world = load_profile(name).need_secure_world()
    figures = list(world.figures())
    assert len(figures) >= 12
    assert all(f.source.strip() and f.value > 0 for _, _, f in figures)
    assert world.hardware_isolation in ISOLATIONS
    assert set(world.instructions_per_mac) == set(SECURE_OPERATOR_CLASSES)
    assert world.ta_ram_bytes.value <= world.secure_dram_bytes.value
    assert world.memref_instructions.value < world.temporary_memref_instructions.value


def test_counts_of_the_emulator_are_measured_there_and_derived_elsewhere():
    assert load_profile("qemu-v8").secure_world.switch_instructions.basis == "measured"
    for name in SECURE:
        world = load_profile(name).secure_world
        assert world.switch_instructions.value == 17500
        assert world.debug_switch_instructions.value == 58500
        if name != "qemu-v8":
            assert world.switch_instructions.basis == "derived"
            assert world.instructions_per_cycle.basis == "assumed"


def test_boards_that_are_not_secure_say_so():
    for name in ("rpi3-optee", "rpi5-optee"):
        world = load_profile(name).secure_world
        assert world.hardware_isolation == "educational"
        assert "not secure" in world.isolation_note
    assert load_profile("qemu-v8").secure_world.hardware_isolation == "none"


def test_a_profile_extends_another_and_keeps_its_figures():
    base, board = load_profile("rpi3"), load_profile("rpi3-optee")
    assert base.secure_world is None
    assert board.name == "rpi3-optee"
    assert board.f_hz == base.f_hz
    assert board.mac_per_second == base.mac_per_second


def test_an_own_profile_may_extend_a_shipped_one(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'extends = "qemu-v8"\nname = "mine"\n'
        'picojoule_per_mac = { value = 5, basis = "assumed", source = "x" }\n'
        '[mac_per_second.int8]\nconv = { value = 7e8, basis = "measured", source = "my bench" }\n',
        encoding="utf-8",
    )
    own = load_profile(path)
    assert own.secure_world == load_profile("qemu-v8").secure_world
    assert own.rate("int8", "conv").value == 7e8
    assert own.power_watt is None


@pytest.mark.parametrize("base", ["'nobody'", "'rpi3-optee'", "3"])
def test_only_shipped_profiles_that_extend_none_are_extended(tmp_path, base):
    path = tmp_path / "mine.toml"
    path.write_text(f'extends = {base}\nname = "mine"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="extends: expected a shipped profile"):
        load_profile(path)


def test_all_problems_of_a_secure_world_are_listed():
    text = GOOD
    for old, new in (
        ('hardware_isolation = "none"', 'hardware_isolation = "military"'),
        ("ta_ram_bytes = { value = 11534336", "ta_ram_bytes = { value = 0.5"),
        ("switch_instructions = { value = 17500", "switch_instructions = { value = -1"),
        ("stack_bytes = {", "stack_bites = {"),
        ("gemm = { value = 0.73", 'gemm = { value = "fast"'),
    ):
        assert old in text
        text = text.replace(old, new, 1)
    with pytest.raises(ConfigError) as caught:
        parse_profile(text, "'x.toml'")
    for part in (
        "one of none, educational, vendor",
        "whole number",
        "positive",
        "'stack_bites'",
        "stack_bytes: missing",
    ):
        assert part in str(caught.value)
    assert "instructions_per_mac.gemm" in str(caught.value)


@pytest.mark.parametrize("table", ["secure_world = 3\n", "[secure_world]\n", "[secure_world.instructions_per_mac]\n"])
def test_a_table_of_another_form_is_refused(table):
    head = GOOD.split("[secure_world]")[0]
    text = table + head if "=" in table else head + table
    with pytest.raises(ConfigError, match="secure_world"):
        parse_profile(text, "'x.toml'")


def test_the_description_and_the_plain_form_hold_the_secure_world():
    profile = load_profile("rpi3-optee")
    rows = dict(profile.describe())
    assert rows["secure world: RAM for one application"].startswith("8.0 MiB (derived:")
    assert rows["secure world: hardware isolation"].startswith("educational:")
    assert profile.to_json()["secure_world"]["switch_instructions"]["value"] == 17500
    assert "secure_world" not in load_profile("rpi4").to_json()
    with pytest.raises(ConfigError, match="no secure_world"):
        load_profile("rpi4").need_secure_world()
