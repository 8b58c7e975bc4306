"""Damaged and hostile bytes: never anything but a DataError or ConfigError, never a byte of content in its text."""

import contextlib
import gzip
import io
import tarfile
import warnings
import zipfile

import numpy as np
import pytest
from data_fixtures import toy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from edgeward.core.errors import ConfigError, DataError
from edgeward.core.randomness import Seed
from edgeward.data import from_csv, from_npz
from edgeward.data.adult import parse_adult
from edgeward.data.binary_table import parse_binary_table
from edgeward.data.cifar10 import cut_sheet, parse_batch
from edgeward.data.files import gunzip, read_bounded, tar_member
from edgeward.data.idx import parse_idx
from edgeward.data.images import decode_image
from edgeward.data.npz import read_npy, read_npz

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def npz_bytes(compressed):
    stream = io.BytesIO()
    a = toy(24, 1)
    (np.savez_compressed if compressed else np.savez)(stream, x=a.x.numpy(), y=a.y.numpy())
    return stream.getvalue()


def tar_bytes(*members):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def picture():
    stream = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(stream, "WEBP", lossless=True)
    return stream.getvalue()


TABLE = b'"3",0,1,1\n"1",1,1,0\n"2",0,0,0\n'
CSV = "age,town,ok\n" + "".join(f"{20 + i}.5,{'AB'[i % 2]},{'ny'[i % 3 == 0]}\n" for i in range(24))
ADULT = b"39, State-gov, 7, Bachelors, 13, N, A, N, W, Male, 2174, 0, 40, United-States, <=50K\n"
IDX = b"\x00\x00\x08\x02\x00\x00\x00\x02\x00\x00\x00\x03abcdef"

READERS = {
    "npz": (npz_bytes(False), lambda b: read_npz(b, "f")),
    "npz compressed": (npz_bytes(True), lambda b: read_npz(b, "f")),
    "gzip": (gzip.compress(bytes(range(200))), lambda b: gunzip(b, "f")),
    "tar": (tar_bytes((tarfile.TarInfo("bangkok"), TABLE)), lambda b: tar_member(b, ("bangkok",), "f")),
    "idx": (IDX, lambda b: parse_idx(b, "f")),
    "table": (TABLE, lambda b: parse_binary_table(b, "f", columns=3, classes=3)),
    "adult": (ADULT, lambda b: parse_adult(b, "f")),
    "batch": (bytes([3]) * 3073 * 2, lambda b: parse_batch(b, "f")),
    "picture": (picture(), lambda b: decode_image(b, "f")),
    "sheet": (picture(), lambda b: cut_sheet(b, "f")),
}


@st.composite
def spoiled(draw, data):
    """Cut, flip, insert, or replace bytes of `data`."""
    found = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        where = draw(st.integers(0, max(len(found) - 1, 0)))
        match draw(st.sampled_from(["cut", "flip", "insert", "tail"])):
            case "cut":
                del found[where:]
            case "flip" if found:
                found[where] ^= draw(st.integers(1, 255))
            case "insert":
                found[where:where] = draw(st.binary(max_size=12))
            case _:
                found += draw(st.binary(max_size=12))
    return bytes(found)


@pytest.mark.parametrize("kind", READERS)
@FUZZ
@given(data=st.data())
def test_damaged_bytes_give_one_data_error(kind, data):
    original, read = READERS[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with contextlib.suppress(DataError):
            read(data.draw(spoiled(original)))


@FUZZ
@given(data=st.data())
def test_damaged_archives_of_the_user(tmp_path, data):
    path = tmp_path / "u.npz"
    path.write_bytes(data.draw(spoiled(npz_bytes(False))))
    with contextlib.suppress(DataError, ConfigError):
        from_npz(path, canaries=3, seed=Seed(0))


@FUZZ
@given(data=st.data())
def test_damaged_tables_of_the_user(tmp_path, data):
    path = tmp_path / "u.csv"
    path.write_bytes(data.draw(spoiled(CSV.encode())))
    with contextlib.suppress(DataError, ConfigError):
        from_csv(path, label="ok", canaries=3, seed=Seed(0))


@FUZZ
@given(st.binary(max_size=60).map(lambda tail: b"\x93NUMPY\x01\x00" + tail))
def test_arbitrary_array_headers(content):
    with contextlib.suppress(DataError):
        read_npy(content, "f")


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627775,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (True, 2)}",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}",
        "__import__('os').getcwd()",
        "[" * 5000,
    ],
)
def test_array_headers_that_lie(header):
    text = header.encode() + b"\n"
    content = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + b"\0\0\0\0"
    with pytest.raises(DataError, match="damaged"):
        read_npy(content, "f")


def test_read_npy_agrees_with_numpy():
    for array in (np.arange(6, dtype=">i2").reshape(2, 3), np.asfortranarray(np.eye(3)), np.zeros((0, 4)), np.array(3)):
        stream = io.BytesIO()
        np.save(stream, array)
        read = read_npy(stream.getvalue(), "f")
        assert read.shape == array.shape
        assert np.array_equal(read, array)


def test_bombs_are_bounded():
    with pytest.raises(DataError, match="bomb"):
        gunzip(gzip.compress(bytes(10_000)), "f", limit=9_999)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", bytes(10_000))
    with pytest.raises(DataError, match="bomb"):
        read_npz(stream.getvalue(), "f", limit=9_999)


@pytest.mark.parametrize("limit", [0, 9])
def test_files_are_bounded(tmp_path, limit):
    (tmp_path / "f").write_bytes(bytes(10))
    with pytest.raises(DataError, match="too large"):
        read_bounded(tmp_path / "f", limit)
    with pytest.raises(DataError, match="cannot be read"):
        read_bounded(tmp_path, limit)


def test_links_and_paths_in_archives_lead_nowhere(tmp_path):
    link = tarfile.TarInfo("bangkok")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
    with pytest.raises(DataError, match="no such regular member"):
        tar_member(tar_bytes((link, b"")), ("bangkok",), "f")
    climbing = tarfile.TarInfo("../../bangkok")
    with pytest.raises(DataError, match="no such regular member"):
        tar_member(tar_bytes((climbing, TABLE)), ("bangkok",), "f")
    assert tar_member(tar_bytes((tarfile.TarInfo("./bangkok"), TABLE)), ("bangkok",), "f") == TABLE


@pytest.mark.parametrize(
    ("read", "content"),
    [
        (lambda b: parse_binary_table(b, "f", columns=3, classes=3), b"1,0,SECRET,1\n"),
        (lambda b: parse_binary_table(b, "f", columns=3, classes=3), b"1,0,7777,1\n"),
        (lambda b: parse_binary_table(b, "f", columns=3, classes=3, rows=9), b"1,0,1,1\n"),
        (lambda b: parse_binary_table(b, "f", columns=3, classes=3), b"4,0,1,1\n"),
        (lambda b: parse_adult(b, "f"), ADULT.replace(b"39", b"SECRET")),
        (lambda b: parse_adult(b, "f"), ADULT.replace(b"<=50K", b"SECRET")),
        (lambda b: parse_batch(b, "f"), bytes([77]) * 3073),
    ],
)
def test_wrong_content_is_not_quoted(read, content):
    with pytest.raises(DataError) as caught:
        read(content)
    error = caught.value
    assert "SECRET" not in str(error)
    assert "7777" not in str(error)
    assert error.__suppress_context__ or error.__context__ is None


def test_a_known_table_and_idx():
    records = parse_binary_table(TABLE, "f", columns=3, classes=3)
    assert records.y.tolist() == [2, 0, 1]
    assert records.x.tolist() == [[0, 1, 1], [1, 1, 0], [0, 0, 0]]
    assert parse_idx(IDX, "f").tolist() == [[97, 98, 99], [100, 101, 102]]
