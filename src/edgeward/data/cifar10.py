"""`cifar10`: from the official binary batches, or from lossless WebP sheets of the first 30000 + 5000 images."""

from __future__ import annotations

from typing import Final

import numpy as np
from jaxtyping import UInt8

from edgeward.core.errors import DataError
from edgeward.data.datasets import DATASETS, Pools, Request
from edgeward.data.files import SourceFile, damaged, locate, read_source
from edgeward.data.images import decode_image, unit_interval
from edgeward.data.npz import read_npz
from edgeward.data.records import Records

ORIGIN: Final = "the CIFAR-10 page of the University of Toronto (binary version)"
_BATCHES: Final = ("data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin")
_TEST_BATCH: Final = "test_batch.bin"
_BATCH_SHA256: Final = {
    "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
}
_SHEET_SHA256: Final = {
    "labels.npz": "de9389fb77009215dccb71cdaaaf6179063551ff4a0fc1a898a7b8e8f6c07e03",
    "test_00.webp": "7d76bcb249b705e761e2636144df650f79d25b028d1ea5c50edc0716c612ea60",
    "test_01.webp": "d5f1e385ad09fa576cdc4e9827ed8f0e2364026871a029e7d081ff4e9223e2c4",
    "test_02.webp": "68b5e041e9f426ac9e39224709a9053f1bc803ec957f5da624bf941704a55d67",
    "test_03.webp": "deadaa704515f74d8c4a89367d34e1ba6ce2f914b77476baece0c2d3bfd39ca7",
    "test_04.webp": "47dcc2e07a5294627d70acfbc9a95629c1e378e67bc93f16bbfaf8627d62bd02",
    "train_00.webp": "40cab8aaeb4a9a85558c1369ceb95d01d3e473f2b3d2548720f07352185861cd",
    "train_01.webp": "30ab0a1b4ad444a2911097ac168bc8e83cb975e08591843cf65b9a7c3440368e",
    "train_02.webp": "5afcf8d05099a74a80d0c5792051ff5b7ee20489241ae7e95dce9a819ed24c31",
    "train_03.webp": "fe1adb16b7d6073a616e90913dd0f475a638e35d6f2e855b33760c6e1c8e0151",
    "train_04.webp": "5087f663715606fd102137a633a4d5af6a0facfcb82dcdace931ac64f67d7b7f",
    "train_05.webp": "691dbaeed649be5da15bdb94930a2f8904426e0fe0bfba58c9712da098fdc216",
    "train_06.webp": "ba28f2431a78db05c55b07df14e0f590e4738f7b40b57ed71d75560736901f65",
    "train_07.webp": "6577319c31af1b0e6d5ee721652434140274ad70179018d32b460b4e93d44716",
    "train_08.webp": "8a5c78e117ac39da93a88e4a8aed64472cd342de68725c73e357ded3a0b30c13",
    "train_09.webp": "d8fc0689092b41d4e80d1122b18d8c05824013005c57ab80406aedcb42bc91d8",
    "train_10.webp": "4f20fbcf6b4a68dce5646c23d98583080c19619714670cff5151ce0828a26b6f",
    "train_11.webp": "9cddc283c0d2c13813c9fe859cf97ba6a5c4b4910bc4d4afdb2b62dec5c96564",
    "train_12.webp": "fa9476c193bd1074dee83597cc67c8178239022d74c732e58ff84784f00a8df6",
    "train_13.webp": "04f576d2ad31a35a25867d06c09b0bee5fd6ee5dc4944925ad42739d7299e46d",
    "train_14.webp": "d6ee4df0a76d1d917c1c100f1ff5397e26cc68f4d54ff050c4c6a9c3ef8f40f7",
    "train_15.webp": "cbe3e6567a574af1b75ff3b5e9cb6d2659f741aba9732a28c312a97e5b7d4304",
    "train_16.webp": "9b9507995898a44cff88acfb99447fefc667dfa653352cfd3edc3eeed2e14cab",
    "train_17.webp": "ebcaa4919e4eb28ee00928274147bf8cb250ff29ab9ab506f9bf3f97f93f5caf",
    "train_18.webp": "58c248c12c3e2ff738dc92e1f22613b23be3ed0874203e7371034973d3d923e0",
    "train_19.webp": "dedf8a67d36127e37d746263a5d8f1310766b87937e6838bd43c37a43ba84761",
    "train_20.webp": "4e378fd575d1cd21f5718be98f2f98fa8c14d0572b5277dd6983eff82ee53a64",
    "train_21.webp": "661c4b9f8031989f78a9798da49961b27184da4d164fc0dee499198da48723ea",
    "train_22.webp": "bd2a7a549ddc731c297fbd87a6b5b853dd82ea78d04e5f90ea081936f538f820",
    "train_23.webp": "075fd57c6031ce6b65683cec0548e9df0e7f13703c691791186e86eadd86fa87",
    "train_24.webp": "fd0c7b3d62ccdf5c660ee413c4e3907455fe5f03cd6a14b06d6c1e71f913ee82",
    "train_25.webp": "18a4bef62b5cc391fe4752f5f8bd985e49d38248c4608a32b26da36f71e98f36",
    "train_26.webp": "ced1061596ed0d571c4c8d193ada21c19fdfa4a6e87edbbf0f1d2f818e5c3d05",
    "train_27.webp": "0061ca9f326b07a2bdab1a9673f0a7ea2655ca7db00fecf367cf8233aaeb3ba7",
    "train_28.webp": "a86e17ba3c8e10ddfa7a3bb6d065aceacc7537286d6097027e9db3061e827ac6",
    "train_29.webp": "57250c1409de4929076dd09849a3bb5e20f43f88a0f0fc8ec6d87a290d34bdae",
}


@DATASETS.register("cifar10")
def cifar10(request: Request) -> Pools:
    """Return CIFAR-10 as [3, 32, 32] in [0, 1], ten classes: 50000 + 10000 or, from the sheets, 30000 + 5000 images.

    The official batches in cifar-10-batches-bin/ are taken where they lie in the data folder, else cifar10/*.webp.
    Source: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    """
    if locate(request.root, _batch(_BATCHES[0])) is not None:
        return _from_batches(request)
    labels = read_npz(read_source(request.root, _sheet("labels.npz")), "labels.npz")
    parts = []
    for role, count in (("train", 30), ("test", 5)):
        names = [f"{role}_{number:02d}.webp" for number in range(count)]
        tiles = [cut_sheet(read_source(request.root, _sheet(name)), name) for name in names]
        parts.append(Records.of(unit_interval(np.concatenate(tiles).transpose(0, 3, 1, 2)), labels[role], role))
    note = "CIFAR-10: the first 30000 training and 5000 test images"
    return Pools(parts[0], parts[1], classes=10, notes=(note,))


def _sheet(name: str) -> SourceFile:
    return SourceFile((f"cifar10/{name}",), (_SHEET_SHA256[name],), ORIGIN)


def _batch(name: str) -> SourceFile:
    known = _BATCH_SHA256.get(name)
    return SourceFile((f"cifar-10-batches-bin/{name}", f"cifar10/{name}"), (known,) if known else (), ORIGIN)


def cut_sheet(data: bytes, name: str) -> UInt8[np.ndarray, "1000 32 32 3"]:
    """Return the 1000 tiles of a sheet of 40 rows and 25 columns, row by row."""
    image = decode_image(data, name)
    if image.size != (800, 1280) or image.mode != "RGB":
        raise damaged(name, "a colour sheet of 800 x 1280 pixels", f"{image.mode} of {image.width} x {image.height}")
    grid = np.asarray(image).reshape(40, 32, 25, 32, 3)
    tiles: np.ndarray = grid.transpose(0, 2, 1, 3, 4).reshape(1000, 32, 32, 3)
    return tiles


def parse_batch(data: bytes, name: str) -> tuple[UInt8[np.ndarray, "n 3 32 32"], UInt8[np.ndarray, " n"]]:
    """Return images and labels of a binary batch: each record is a label byte and 3072 channel-major pixels."""
    if not data or len(data) % 3073:
        raise damaged(name, "a multiple of 3073 bytes", f"{len(data)} bytes")
    rows = np.frombuffer(data, dtype=np.uint8).reshape(-1, 3073)
    if int(rows[:, 0].max()) > 9:
        raise damaged(name, "label bytes 0 to 9", f"{int((rows[:, 0] > 9).sum())} larger ones")
    return rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0]


def _from_batches(request: Request) -> Pools:
    parts = [parse_batch(read_source(request.root, _batch(name)), name) for name in (*_BATCHES, _TEST_BATCH)]
    # No digest of these batches is in the table, but the official set is balanced: 5000 + 1000 images a class.
    train_y = np.concatenate([labels for _, labels in parts[:-1]])
    test_x, test_y = parts[-1]
    counts = [np.bincount(y, minlength=10).tolist() for y in (train_y, test_y)]
    if counts != [[5000] * 10, [1000] * 10]:
        raise DataError(
            "the CIFAR-10 batches are not the official ones",
            expected="5000 training and 1000 test images of each class",
            came=f"training {counts[0]}, test {counts[1]}",
            fix=f"get cifar-10-binary.tar.gz again from {ORIGIN}",
        )
    train = Records.of(unit_interval(np.concatenate([images for images, _ in parts[:-1]])), train_y, "train")
    note = "CIFAR-10 batches 4, 5 and test: accepted by size and class counts, no checksum in the table"
    return Pools(train, Records.of(unit_interval(test_x), test_y, "test"), classes=10, notes=(note,))
