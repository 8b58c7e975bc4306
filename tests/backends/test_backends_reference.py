import numpy as np
import pytest
import torch

from backends.operator_table import CASES
from edgeward.backends.cleartext.reference import ReferenceExecutable
from edgeward.core.errors import DataError
from edgeward.graph import OPERATORS
from edgeward.graph.semantics import STEPS


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_reference_equals_the_module(case):
    _, module, shape = case
    network = case.network
    operators = [node.operator for node in network.nodes]
    assert set(case.operators) <= set(operators)
    for count in (1, 3):
        x = torch.randn(count, *shape, generator=torch.Generator().manual_seed(count)) * 2
        found = ReferenceExecutable(network).run(x.numpy())
        with torch.no_grad():
            expected = module(x).numpy()
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)


def test_table_and_steps_cover_every_operator():
    seen = {node.operator for case in CASES for node in case.network.nodes}
    assert seen == set(OPERATORS)
    assert set(STEPS) | {"constant"} == set(OPERATORS)


def test_wrong_shape_is_a_data_error():
    case = CASES[0]
    with pytest.raises(DataError, match="do not fit"):
        ReferenceExecutable(case.network).run(np.zeros((2, 9), np.float32))


def test_empty_batch_gives_empty_answers():
    case = CASES[0]
    assert ReferenceExecutable(case.network).run(np.zeros((0, 5), np.float32)).shape == (0, 3)


def test_chunks_do_not_show():
    case = next(case for case in CASES if case.name == "token_block")
    x = np.random.default_rng(0).normal(size=(7, 4, 6)).astype(np.float32)
    whole, parts = ReferenceExecutable(case.network), ReferenceExecutable(case.network, chunk=3)
    np.testing.assert_allclose(whole.run(x), parts.run(x), atol=1e-6)
