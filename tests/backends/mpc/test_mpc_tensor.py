"""Secret tensors: values and gradients against PyTorch, declared traffic, material by rehearsal, training."""

import functools
import gzip
import itertools
import os
import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from edgeward.backends.mpc.offline.demand import Demand
from edgeward.backends.mpc.offline.tuples import Dealer, SupplyError
from edgeward.backends.mpc.party import Party
from edgeward.backends.mpc.ring import Ring
from edgeward.backends.mpc.tensor import functions
from edgeward.backends.mpc.tensor.learning import Descent
from edgeward.backends.mpc.tensor.pair import Pair
from edgeward.backends.mpc.tensor.run import Given, evaluate, given, rehearsed, simulate_function
from edgeward.backends.mpc.tensor.secret import constant
from edgeward.backends.mpc.transport.pair import run_parties
from edgeward.core.errors import ConfigError, DataError, UserError

DATA = Path(os.environ.get("EDGEWARD_DATA") or Path(__file__).parents[3] / ".." / "shared" / "data")
HOW_TO = Path(__file__).parents[3] / "docs" / "how-to" / "write-a-secure-function.md"
KINDS = ("images-idx3", "labels-idx1")
CLEAR = SimpleNamespace(
    relu=torch.relu,
    sigmoid=torch.sigmoid,
    tanh=torch.tanh,
    exp=torch.exp,
    log=torch.log,
    reciprocal=torch.reciprocal,
    softmax=lambda x: x.softmax(1),
    maximum=torch.maximum,
    largest=lambda x, axis: x.amax(axis),
    concatenate=torch.cat,
    turned=lambda x, *axes: x.permute(*axes),
    conv2d=lambda x, w, **o: torch.nn.functional.conv2d(x, w, **o),
    cross_entropy=lambda x, y: torch.nn.functional.cross_entropy(x, torch.from_numpy(y)),
)
SECRET = SimpleNamespace(
    **{name: value for name, value in vars(functions).items() if callable(value)},
    turned=lambda x, *axes: x.transpose(*axes),
)

ONE_HOT = np.eye(4)[[0, 3, 1]]
LINEAR = {
    "sums": ([(3, 4), (4,)], lambda f, x, y: (x + y - 0.25) - (2 - y)),
    "public-factors": ([(3, 4)], lambda f, x: 3 * x / 7 + x * 0.01 - x / -2),
    "products": ([(3, 4), (3, 1)], lambda f, x, y: x * y * y + x * x),
    "both-broadcast": ([(3, 1), (1, 4)], lambda f, x, y: x * y),
    "matrices": ([(3, 5), (5, 4), (4,)], lambda f, x, w, b: (x @ w + b) @ f.turned(w, 1, 0)),
    "public-matrix": ([(3, 5)], lambda f, x: x @ torch.arange(20.0, dtype=torch.float64).reshape(5, 4) / 8 + x[:, :4]),
    "shapes": ([(2, 3, 4)], lambda f, x: f.turned(x.reshape(6, 4), 1, 0)[1:3, ::2].reshape(6)),
    "indices": ([(5, 3)], lambda f, x: x[[0, 2, 2, 4]]),
    "reductions": ([(2, 3, 4)], lambda f, x: x.sum(0).mean(1) + x.mean((0, 2)) - x.sum()),
    "joined": ([(2, 3), (2, 2)], lambda f, x, y: f.concatenate([x * x, y], 1)),
    "convolution": ([(2, 3, 6, 5), (4, 3, 3, 2)], lambda f, x, w: f.conv2d(x, w, stride=(2, 1), padding=(1, 0))),
    "convolution-dilated": (
        [(1, 2, 7, 8), (3, 2, 2, 3)],
        lambda f, x, w: f.conv2d(x, w, dilation=(2, 1), padding=(2, 1), stride=(1, 2)),
    ),
    "convolution-padded-widely": ([(1, 2, 4, 4), (2, 2, 2, 2)], lambda f, x, w: f.conv2d(x, w, padding=(3, 2))),
}
COMPARED = {
    "relu": ([(3, 4)], lambda f, x: f.relu(x * x - x)),
    "maxima": ([(3, 5), (3, 5)], lambda f, x, y: f.largest(f.maximum(x, y), 1) + f.largest(x, 0).sum()),
}
CURVED = {
    "sigmoid": ([(3, 4)], lambda f, x: f.sigmoid(x * 3)),
    "tanh": ([(3, 4)], lambda f, x: f.tanh(x * 3)),
    "exp": ([(3, 4)], lambda f, x: f.exp(x)),
    "inverse": ([(3, 4)], lambda f, x: f.reciprocal(x * x + 0.5) + f.log(x * x + 0.5)),
    "softmax": ([(3, 4)], lambda f, x: f.softmax(x * 3)),
    "softmax-wide": ([(2, 70)], lambda f, x: f.softmax(x * 3)),
    "cross-entropy": ([(3, 4)], lambda f, x: f.cross_entropy(x, ONE_HOT)),
}


def drawn(shapes, seed=1):
    draws = np.random.default_rng(seed)
    return [draws.normal(size=shape) for shape in shapes]


def derived(shapes, function, parties, tracked=True):
    """Return value and gradients in the ring and in float64, and the run."""
    arrays = drawn(shapes)
    leaves = [torch.tensor(array, requires_grad=True) for array in arrays]
    right = function(CLEAR, *leaves)
    weights = np.random.default_rng(2).normal(size=right.shape or (1,))
    (right * torch.tensor(weights)).sum().backward()

    def program(*tensors):
        if tracked:
            for tensor in tensors:
                tensor.track()
        out = function(SECRET, *tensors)
        if tracked:
            (out * weights).sum().backward()
        return [out.reveal()] + [tensor.gradient.reveal() for tensor in tensors if tensor.tracked]

    run = simulate_function(program, [given(a, i % parties) for i, a in enumerate(arrays)], parties=parties)
    return run, [right.detach().numpy().reshape(weights.shape)] + [leaf.grad.numpy() for leaf in leaves]


CASES = [(name, parties) for parties in (2, 3) for name in (*LINEAR, *COMPARED, *CURVED)]


@pytest.mark.parametrize(("name", "parties"), CASES)
def test_values_and_gradients_are_those_of_pytorch(name, parties):
    run, right = derived(*(LINEAR | COMPARED | CURVED)[name], parties)
    tolerance = 2e-3 if name in CURVED else 1e-3
    for result in run.results:
        for got, wanted in zip(result, right, strict=True):
            assert np.abs(wanted).max() > 20 * tolerance
            np.testing.assert_allclose(got, wanted, atol=tolerance, rtol=0)
    assert run.agrees
    assert run.metered[0].bytes > 0


@pytest.mark.parametrize("parties", [2, 3])
def test_without_gradients_a_relu_is_one_protocol(parties):
    shapes, function = [(3, 4)], lambda f, x: f.relu(x * x - x)
    tracked, _ = derived(shapes, function, parties)
    plain, right = derived(shapes, function, parties, tracked=False)
    np.testing.assert_allclose(plain.result[0], right[0], atol=1e-4)
    assert plain.agrees
    assert plain.metered[0].rounds < tracked.metered[0].rounds
    if parties == 2:
        assert [type(demand).__name__ for demand in plain.demands] == ["Square", "Relu"]
        assert plain.offline_bytes == sum(demand.offline_bytes(Ring()) for demand in plain.demands)


def test_sums_of_large_values_with_small_shares_of_others_do_not_overflow():
    def program(a, b):
        return [(a * a + b * 0.001).reveal(), functions.relu(b * 0.0001 - 0.5).reveal()]

    run = simulate_function(program, [given([20000.0], 0), given([30000.0], 1)])
    np.testing.assert_allclose(run.result[0], [4e8 + 30], atol=1e-3)
    np.testing.assert_allclose(run.result[1], [2.5], atol=1e-2)


def test_a_public_matrix_from_the_left():
    a, x = drawn([(2, 3), (3, 4)])
    run = simulate_function(lambda secret: (a @ secret).reveal(), [given(x, 0)])
    np.testing.assert_allclose(run.result, a @ x, atol=1e-4)
    assert [type(demand).__name__ for demand in run.demands] == ["Truncation"]


@pytest.mark.parametrize("parties", [2, 3])
def test_comparisons_at_and_around_the_bound(parties):
    x = np.array([-3.0, -(2.0**-16), 0.0, 2.0**-16, 3.0])

    def program(a):
        return [bit.reveal() for bit in (a > 0, a >= 0, a < 0, a <= 0, 1 - (a > a), a >= x[::-1])]

    run = simulate_function(program, [given(x, 1)], parties=parties)
    for got, right in zip(run.result, (x > 0, x >= 0, x < 0, x <= 0, x == x, x >= x[::-1]), strict=True):
        np.testing.assert_array_equal(got, right.astype(float))
    assert run.agrees


@pytest.mark.parametrize("parties", [2, 3])
def test_one_party_learns_what_is_revealed_to_it(parties):
    def program(a, b):
        return [(a * b).reveal(to=number) for number in range(parties)]

    run = simulate_function(program, [given([2.0, 3.0], 0), given([5.0, -1.0], 1)], parties=parties)
    for number, result in enumerate(run.results):
        assert [answer is not None for answer in result] == [number == i for i in range(parties)]
        np.testing.assert_allclose(result[number], [10, -3], atol=1e-4)
    assert run.agrees


def scored(x, w):
    """Return relu(x w) of two secret matrices, to the owner of the first."""
    return functions.relu(x @ w).reveal(to=0)


def deployed(function, supplies, x, w):
    """Run both parties over a channel with material that was dealt before; numbers only at their owners."""
    arguments = [[Given(x.shape, 0, x), Given(w.shape, 1)], [Given(x.shape, 0), Given(w.shape, 1, w)]]

    def party(channel):
        me = channel.party
        return evaluate(function, Pair(Party(me, Ring(), channel), supplies[me]), arguments[me])

    return run_parties(party, party)


def test_two_parties_over_a_channel_with_material_that_a_rehearsal_asked_for():
    x, w = drawn([(3, 4), (4, 2)])
    demands = rehearsed(scored, [Given(x.shape, 0), Given(w.shape, 1)])
    assert all(isinstance(demand, Demand) for demand in demands)
    supplies = Dealer(Ring()).supplies(demands)
    answer, nothing = deployed(scored, supplies, x, w)
    np.testing.assert_allclose(answer, np.maximum(x @ w, 0), atol=1e-4)
    assert nothing is None
    # All of it was used, and there is no second time.
    with pytest.raises(SupplyError, match="nothing more was dealt"):
        deployed(scored, supplies, x, w)


def test_a_function_that_asks_for_what_was_not_dealt_stops():
    x, w = drawn([(3, 4), (4, 2)])
    supplies = Dealer(Ring()).supplies(rehearsed(scored, [Given(x.shape, 0), Given(w.shape, 1)]))
    with pytest.raises(SupplyError, match="for something else"):
        deployed(lambda a, b: functions.relu(a[:2] @ b).reveal(), supplies, x, w)


def blobs(records, features, classes, seed=0):
    draws = np.random.default_rng(seed)
    labels = draws.integers(0, classes, records)
    return 1.5 * draws.normal(size=(classes, features))[labels] / 2 + draws.normal(size=(records, features)), labels


def test_logistic_regression_learns_what_it_learns_in_the_clear():
    x, labels = blobs(160, 10, 2)
    y, batches = labels[:, None].astype(float), [slice(start, start + 32) for start in range(0, 160, 32)]

    def program(records, targets):
        w = constant(records.protocols, np.zeros((10, 1)))
        descent = Descent([w], rate=0.5, momentum=0.5)
        for batch in batches:
            z = records[batch] @ w
            z.backward((functions.sigmoid(z) - targets[batch]).detach() / 32)
            descent.step()
        return w.reveal(to=0)

    run = simulate_function(program, [given(x, 0), given(y, 1)])
    w, moving = torch.zeros(10, 1, dtype=torch.float64, requires_grad=True), 0
    for batch in batches:
        clear = torch.nn.functional.binary_cross_entropy_with_logits
        (gradient,) = torch.autograd.grad(clear(torch.tensor(x[batch]) @ w, torch.tensor(y[batch])), w)
        moving = gradient + 0.5 * moving
        w = (w - 0.5 * moving).detach().requires_grad_()
    np.testing.assert_allclose(run.result, w.detach().numpy(), atol=2e-3)
    accuracies = [((x @ weights > 0) == (y > 0)).mean() for weights in (run.result, w.detach().numpy())]
    assert accuracies[1] > 0.85
    assert abs(accuracies[0] - accuracies[1]) <= 0.01
    assert run.agrees


def network(draws, *widths):
    return [draws.normal(size=(a + 1, b)) / np.sqrt(a) for a, b in itertools.pairwise(widths)]


def trained(x, targets, layers, batches, rate):
    """Return the layers of a two-layer network trained on secret records, and the run."""

    def program(records, labels, *shared):
        descent = Descent(shared, rate, momentum=0.5)
        for batch in batches:
            hidden = functions.relu(records[batch] @ shared[0][:-1] + shared[0][-1:])
            logits = hidden @ shared[1][:-1] + shared[1][-1:]
            logits.backward((functions.softmax(logits).detach() - labels[batch]) / len(logits))
            descent.step()
        return [layer.reveal(to=0) for layer in shared]

    run = simulate_function(program, [given(x, 0), given(targets, 0), *(given(layer, 1) for layer in layers)])
    return run.results[0], run


def trained_clearly(x, targets, layers, batches, rate):
    leaves = [torch.tensor(layer, requires_grad=True) for layer in layers]
    descent = torch.optim.SGD(leaves, rate, momentum=0.5)
    for batch in batches:
        hidden = torch.relu(torch.tensor(x[batch]) @ leaves[0][:-1] + leaves[0][-1:])
        loss = torch.nn.functional.cross_entropy(hidden @ leaves[1][:-1] + leaves[1][-1:], torch.tensor(targets[batch]))
        descent.zero_grad()
        loss.backward()
        descent.step()
    return [leaf.detach().numpy() for leaf in leaves]


def accuracy(x, labels, layers):
    hidden = np.maximum(x @ layers[0][:-1] + layers[0][-1:], 0)
    return ((hidden @ layers[1][:-1] + layers[1][-1:]).argmax(1) == labels).mean()


def test_a_small_network_learns_what_it_learns_in_the_clear():
    x, labels = blobs(128, 12, 3)
    targets, layers = np.eye(3)[labels], network(np.random.default_rng(3), 12, 8, 3)
    batches = [slice(start, start + 32) for start in range(0, 128, 32)]
    secret, run = trained(x, targets, layers, batches, rate=0.5)
    clear = trained_clearly(x, targets, layers, batches, rate=0.5)
    for got, right in zip(secret, clear, strict=True):
        np.testing.assert_allclose(got, right, atol=5e-3)
    assert accuracy(x, labels, clear) > 0.8
    assert abs(accuracy(x, labels, secret) - accuracy(x, labels, clear)) <= 0.02
    assert run.agrees


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "mnist").exists(), reason="no MNIST in EDGEWARD_DATA")
def test_a_network_of_784_32_10_learns_digits_as_it_does_in_the_clear():
    def pool(name, records):
        content = [gzip.decompress((DATA / "mnist" / f"{name}-{kind}-ubyte.gz").read_bytes()) for kind in KINDS]
        images = np.frombuffer(content[0], np.uint8, offset=16).reshape(-1, 784)[:records]
        return images / 255, np.frombuffer(content[1], np.uint8, offset=8)[:records]

    (x, labels), (unseen, digits) = pool("train", 3200), pool("t10k", 2000)
    layers, batches = network(np.random.default_rng(5), 784, 32, 10), [slice(i, i + 64) for i in range(0, 3200, 64)]
    secret, run = trained(x, np.eye(10)[labels], layers, batches, rate=0.1)
    clear = trained_clearly(x, np.eye(10)[labels], layers, batches, rate=0.1)
    assert run.agrees
    assert accuracy(unseen, digits, clear) > 0.75
    assert abs(accuracy(unseen, digits, secret) - accuracy(unseen, digits, clear)) <= 0.01


def test_three_parties_train_without_a_dealer():
    draws = np.random.default_rng(4)
    x, right = draws.normal(size=(64, 6)), draws.normal(size=(6, 1))

    def program(records, targets):
        w = constant(records.protocols, np.zeros((6, 1)))
        descent = Descent([w], rate=0.4)
        for _ in range(8):
            error = records @ w - targets
            (error * error).mean().backward()
            descent.step()
        return w.reveal(to=2)

    run = simulate_function(program, [given(x, 0), given(x @ right, 1)], parties=3)
    w = np.zeros((6, 1))
    for _ in range(8):
        w = w - 0.4 * 2 / 64 * x.T @ (x @ w - x @ right)
    np.testing.assert_allclose(run.results[2], w, atol=2e-3)
    assert np.abs(run.results[2] - right).max() < 0.2
    assert run.agrees


@functools.cache
def failures():
    def curve(x):
        return functions.sigmoid(x)

    matrix = given(np.ones((2, 3)), 0)
    return [
        (lambda x: bool(x > 0), matrix, ConfigError, "neither true nor false"),
        (lambda x: x / x, matrix, ConfigError, "a secret divisor"),
        (lambda x: x / 0.0, matrix, DataError, "division by zero"),
        (lambda x: x + float("nan"), matrix, DataError, "must be finite"),
        (lambda x: x @ x, matrix, DataError, "no matrix product"),
        (lambda x: x @ np.ones((2, 2)), matrix, DataError, "no matrix product"),
        (lambda x: x.reveal(to=2), matrix, ConfigError, "no such party"),
        (lambda x: x.backward(), matrix, ConfigError, "which gradient"),
        (lambda x: x.sum().backward(), matrix, ConfigError, "nothing was recorded"),
        (lambda x: x.assign(x[:1]), matrix, ConfigError, "another shape"),
        (lambda x: functions.softmax(x[0]), matrix, ConfigError, "the last of two axes"),
        (lambda x: functions.conv2d(x, x), matrix, DataError, "no convolution"),
        (lambda x: Descent([x], rate=0.0), matrix, ConfigError, "no such descent"),
        (lambda x: x, Given((2, 3), 0), ConfigError, "nobody brings"),
        (lambda x: x, given(np.ones(2), 2), ConfigError, "nobody brings"),
        (lambda x: x, given(2.0**60, 0), DataError, "do not fit"),
    ]


@pytest.mark.parametrize("case", range(16))
def test_what_cannot_be_done_is_said(case):
    function, argument, kind, words = failures()[case]
    with pytest.raises(kind, match=words):
        simulate_function(function, [argument])


def test_two_or_three_parties_compute():
    with pytest.raises(UserError, match="number of parties"):
        simulate_function(functions.sigmoid, [given(np.ones(2), 0)], parties=4)


def test_no_share_shows_in_a_text():
    texts = simulate_function(lambda x: [repr(x), str(x.value), repr(x.gradient)], [given([1234.5], 0)]).results
    share = str(Ring().encode(np.array([1234.5]))[0])
    assert all(share not in text and "1234" not in text for result in texts for text in result)


def test_the_how_to_runs(tmp_path):
    script = tmp_path / "how_to.py"
    script.write_text("\n".join(re.findall(r"```python\n(.*?)```", HOW_TO.read_text(), re.S)))
    assert "answer" in runpy.run_path(str(script))


@pytest.mark.parametrize("parties", [2, 3])
@pytest.mark.parametrize(("name", "bits"), [("exp", 62), ("reciprocal", 61)])
def test_a_ring_in_which_results_would_wrap_is_refused(name, bits, parties):
    arguments = [given(np.array([2.0, 0.5]), 0)]
    with pytest.raises(ConfigError, match="leaves this ring"):
        simulate_function(getattr(functions, name), arguments, parties=parties, ring=Ring(bits, 16))
    if name == "exp":
        run = simulate_function(
            lambda x: functions.exp(x).reveal(), [given(np.array([10.9]), 0)], parties=parties, ring=Ring(63, 16)
        )
        np.testing.assert_allclose(run.results[0], np.exp([10.9]), rtol=1e-4)
