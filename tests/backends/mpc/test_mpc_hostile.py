"""What a party that has proved who it is may say wrong: lengths, indices, lists, plans; each ends with one error."""

import threading

import numpy as np
import pytest
from torch import nn

from edgeward import mpc
from edgeward.backends.mpc.deployment.agreement import agree_stock, receive_plan
from edgeward.backends.mpc.deployment.stock import MemoryStock
from edgeward.backends.mpc.deployment.streamed import BATCH, StreamedTuples
from edgeward.backends.mpc.offline.tuples import SupplyError
from edgeward.backends.mpc.transport.failures import ChannelError, Failure
from edgeward.backends.mpc.transport.pair import local_pair
from edgeward.core.errors import DataError
from patience import PATIENCE

PLAN = mpc.lowered(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), (4,)).plan


@pytest.fixture
def pair():
    ours, theirs = local_pair(timeout=PATIENCE)
    yield ours, theirs
    for channel in (ours, theirs):
        channel.abort()


@pytest.mark.parametrize("length", [(1 << 26) + 1, 1 << 63, (1 << 64) - 1])
def test_a_plan_of_any_length_takes_no_memory(pair, length):
    ours, theirs = pair
    theirs.send(np.array([length], np.uint64), "plan/length")
    with pytest.raises(ChannelError) as caught:
        receive_plan(ours)
    assert caught.value.reason is Failure.MALFORMED


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 50_000, b"1" * 10_000, b"{}"])
def test_a_plan_that_is_none(pair, content):
    ours, theirs = pair
    theirs.send_bytes(content, "plan")
    with pytest.raises(DataError):
        receive_plan(ours)


@pytest.mark.parametrize("indices", [[3, 3], [3, 2], [10**12], [(1 << 64) - 2]])
def test_a_dealer_that_deals_an_index_again_or_beyond_all(pair, indices):
    ours, theirs = pair
    failed, told = [], threading.Event()
    stock = MemoryStock()
    stock.put(2, [b"kept"])

    def fail(error):
        failed.append(error)
        told.set()

    source = StreamedTuples(ours, stock, PLAN, 0, ahead=5, failed=fail)
    for index in indices:
        theirs.send(np.array([index], np.uint64), BATCH)
        theirs.send(np.zeros(32, np.uint8), "seed")
    assert told.wait(PATIENCE)
    assert [type(error) for error in failed] == [SupplyError]
    with pytest.raises(SupplyError, match="second time"):
        source.wait_for(5, PATIENCE)
    source.close()


@pytest.mark.parametrize(
    ("raw", "left"),
    [
        (b"", []),
        (b"\x01", []),
        (np.array([4, 2**64 - 1, 9, 4], "<u8").tobytes() + b"\x01\x02", [4, 9]),
        (bytes(8) * 1000, []),
    ],
)
def test_a_list_of_batches_that_no_party_has(pair, raw, left):
    ours, theirs = pair
    stock = MemoryStock()
    for index in (1, 4, 9):
        stock.put(index, [b"kept"])
    theirs.send_bytes(raw, "stock")
    agree_stock(ours, stock)
    assert stock.indices() == left


def test_a_list_of_batches_without_end(pair):
    ours, theirs = pair
    theirs.send(np.array([1 << 63], np.uint64), "stock/length")
    with pytest.raises(ChannelError) as caught:
        agree_stock(ours, MemoryStock())
    assert caught.value.reason is Failure.MALFORMED
