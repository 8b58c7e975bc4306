"""Reading profiles: whatever the text, a profile or one ConfigError that lists everything."""

from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeward.core.errors import ConfigError
from edgeward.devices import DeviceProfile, devices, load_profile
from edgeward.devices.reading import parse_profile

GOOD = (files("edgeward.devices") / "profiles" / "cortex-m4.toml").read_text(encoding="utf-8")


def broken(*changes: tuple[str, str]) -> str:
    text = GOOD
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return text


def parsed(text: str) -> DeviceProfile | ConfigError:
    try:
        return parse_profile(text, "'x.toml'")
    except ConfigError as error:
        return error


def test_own_profile_from_a_path(tmp_path):
    path = tmp_path / "board.toml"
    path.write_text(GOOD.replace('name = "cortex-m4"', 'name = "my-board"'), encoding="utf-8")
    own = load_profile(path)
    assert own.name == "my-board"
    assert own.rate("int8", "conv") == load_profile("cortex-m4").rate("int8", "conv")
    assert load_profile(str(path)) == own


def test_all_problems_are_listed_at_once():
    text = broken(
        ('kind = "mcu"', 'kind = "toaster"'),
        ("f_hz = { value = 120000000", "f_hz = { value = -1"),
        ("cores = {", "corez = {"),
        ("ram_bytes = { value = 655360", "ram_bytes = { value = 0.5"),
        ("op_overhead_seconds = { value = 8.333e-06", 'op_overhead_seconds = { value = "fast"'),
        ('value = 7.512e7, basis = "published"', 'value = inf, basis = "guessed"'),
        ("[mac_per_second.binary]", "[mac_per_second.ternary]"),
    )
    with pytest.raises(ConfigError) as caught:
        parse_profile(text, "'x.toml'")
    message = str(caught.value)
    for part in (
        "kind: expected one of mcu",
        "f_hz.value: expected a positive",
        "'corez': unknown key",
        "cores: missing",
    ):
        assert part in message
    for part in (
        "ram_bytes.value: expected a whole",
        "'fast'",
        "conv.value: expected a finite",
        "'ternary': unknown key",
    ):
        assert part in message
    assert "conv.basis: expected one of measured, published, derived" in message
    assert message.count("\n    ") >= 9


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "picojoule_per_mac = {",
            "power_watt = { value = 1, basis = 'derived', source = 'x' }\npicojoule_per_mac = {",
            "exactly one",
        ),
        ("picojoule_per_mac = {", "#", "exactly one"),
        ("band = { value = 2", "band = { value = 0.5", "a factor of at least 1"),
        ('name = "cortex-m4"', 'name = "../../etc"', "lower-case words"),
        ('title = "', 'title = "\\u001b[2J', "one line of text"),
        ("f_hz = { value = 120000000", "f_hz = { value = true", "expected a number"),
        ("f_hz = { value = 120000000", "f_hz = { value = nan", "finite"),
        ("f_hz = { value = 120000000", f"f_hz = {{ value = {10**400}", "finite"),
        ("cores = { value = 1,", "cores = 1 #", "expected { value, source, basis }"),
        ('source = "MLPerf Tiny v1.2 closed, summary.csv, NUCLEO-L4R5ZI" }', 'source = " " }', "name of a publication"),
    ],
)
def test_each_impossible_value_is_named(old, new, said):
    with pytest.raises(ConfigError, match=said):
        parse_profile(broken((old, new)), "'x.toml'")


def test_a_profile_without_usable_rates_is_refused():
    text = GOOD.split("[mac_per_second.float32]")[0] + "[mac_per_second.binary]\n"
    text += 'conv = { value = 1e9, basis = "derived", source = "x" }\n'
    with pytest.raises(ConfigError, match="at least one rate for float32 or int8"):
        parse_profile(text, "'x.toml'")


def test_unreadable_paths(tmp_path):
    binary, large, folder = tmp_path / "binary.toml", tmp_path / "large.toml", tmp_path / "folder.toml"
    binary.write_bytes(b"\xff\xfe\x00name")
    large.write_bytes(b"#" * (1 << 21))
    folder.mkdir()
    for path in (binary, large, folder, tmp_path / "absent.toml", "a\0b.toml"):
        with pytest.raises(ConfigError, match="cannot be read"):
            load_profile(path)
    with pytest.raises(ConfigError):
        load_profile("")


@given(st.data())
def test_mutated_text_gives_a_profile_or_a_config_error(data):
    text = GOOD
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        length = data.draw(st.integers(0, 30))
        text = text[:start] + data.draw(st.text(max_size=12)) + text[start + length :]
    outcome = parsed(text)
    assert isinstance(outcome, DeviceProfile) or len(str(outcome)) < 20_000


@given(st.text(max_size=200))
def test_arbitrary_text_gives_a_config_error(text):
    with pytest.raises(ConfigError):
        parse_profile(text, "'x.toml'")


_LEAVES = st.one_of(
    st.integers(-(2**63), 2**63 - 1), st.floats(), st.booleans(), st.text("abc é", max_size=5), st.just([]), st.just({})
)


@given(st.dictionaries(st.sampled_from(["value", "source", "basis", "other"]), _LEAVES, max_size=4))
def test_any_table_in_place_of_a_figure_is_read_or_refused(table):
    def shown(value):
        if isinstance(value, bool):
            return str(value).lower()
        return f'"{value}"' if isinstance(value, str) else str(value)

    inline = ", ".join(f"{key} = {shown(value)}" for key, value in table.items())
    line = next(line for line in GOOD.splitlines() if line.startswith("f_hz"))
    outcome = parsed(GOOD.replace(line, f"f_hz = {{ {inline} }}"))
    if isinstance(outcome, DeviceProfile):
        assert outcome.f_hz.value > 0
        assert outcome.f_hz.source.strip()
    else:
        assert "f_hz" in str(outcome)


def test_a_very_deep_document_is_refused_without_a_traceback():
    with pytest.raises(ConfigError):
        parse_profile("a = " + "[" * 100_000, "'x.toml'")


def test_shipped_files_and_names_agree():
    assert all(load_profile(name).name == name for name in devices())


def test_a_flood_of_unknown_keys_gives_a_short_message():
    text = "".join(f"key{i} = 1\n" for i in range(5000)) + GOOD
    with pytest.raises(ConfigError, match=r"5000 problems[\s\S]*and 4960 more") as caught:
        parse_profile(text, "'x.toml'")
    assert len(str(caught.value)) < 5000
