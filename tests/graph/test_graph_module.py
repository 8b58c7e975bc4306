import warnings

import numpy as np
import pytest
import torch
from torch import nn

from backends.operator_table import CASES
from edgeward.core.errors import ModelError
from edgeward.graph import capture, capture_program, fold_batch_norm, to_module


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rebuilt_module_equals_the_original(case):
    rebuilt = to_module(case.network)
    x = torch.randn(3, *case.input_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        np.testing.assert_allclose(rebuilt(x).numpy(), case.module(x).numpy(), atol=1e-5, rtol=1e-5)


def sample():
    torch.manual_seed(3)
    body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
    return nn.Sequential(body, nn.Flatten(), nn.Linear(4 * 3 * 3, 5)).eval()


def test_state_dict_has_the_original_keys_and_loads_both_ways():
    original = sample()
    rebuilt = to_module(capture(original, (1, 8, 8)))
    assert rebuilt.state_dict().keys() == original.state_dict().keys()
    sibling = sample()
    with torch.no_grad():
        for tensor in sibling.parameters():
            tensor.normal_()
    rebuilt.load_state_dict(sibling.state_dict())
    x = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(rebuilt(x), sibling(x))


def test_rebuilt_module_trains_and_resets():
    rebuilt = to_module(capture(sample(), (1, 8, 8))).train()
    layers = [type(layer) for layer in rebuilt.modules() if hasattr(layer, "reset_parameters")]
    assert layers == [nn.Conv2d, nn.BatchNorm2d, nn.Linear]
    rebuilt(torch.randn(4, 1, 8, 8)).square().mean().backward()
    assert all(p.grad is not None for p in rebuilt.parameters())


def test_parameters_stay_parameters_and_buffers_stay_buffers():
    network = next(case.network for case in CASES if case.name == "scale_and_shift")
    assert network.parameters == {"gain"}
    rebuilt = to_module(network)
    assert len(list(rebuilt.parameters())) == 1
    assert len(list(rebuilt.buffers())) == 2


def test_rebuilt_from_a_folded_network_can_be_captured_and_swapped():
    folded = fold_batch_norm(capture(sample(), (1, 8, 8)))
    rebuilt = to_module(folded)
    assert set(rebuilt.state_dict()) == {"0.0.weight", "0.0.bias", "2.weight", "2.bias"}
    again = capture(rebuilt, (1, 8, 8))
    again.with_tensors(rebuilt.state_dict())


def test_a_pt2_file_becomes_a_trainable_module(tmp_path):
    original = sample()
    batch = torch.export.Dim("batch")
    program = torch.export.export(original, (torch.randn(2, 1, 8, 8),), dynamic_shapes=({0: batch},))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, tmp_path / "model.pt2")
        loaded = torch.export.load(tmp_path / "model.pt2")
    rebuilt = to_module(capture_program(loaded))
    x = torch.randn(3, 1, 8, 8)
    torch.testing.assert_close(rebuilt(x), original(x))
    assert rebuilt.state_dict().keys() == original.state_dict().keys()


def test_programs_of_one_batch_size_or_two_inputs_are_refused():
    fixed = torch.export.export(nn.Linear(2, 2), (torch.randn(3, 2),))
    with pytest.raises(ModelError, match="fixed batch size"):
        capture_program(fixed)
    double = torch.export.export(nn.Bilinear(2, 2, 2), (torch.randn(3, 2), torch.randn(3, 2)))
    with pytest.raises(ModelError, match="2 inputs"):
        capture_program(double)


def test_tied_layers_stay_tied():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return self.layer(torch.relu(self.layer(x)))

    rebuilt = to_module(capture(Tied(), (4,)))
    assert sum(p.numel() for p in rebuilt.parameters()) == 20
