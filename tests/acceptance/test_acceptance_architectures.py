"""Convolutions with BatchNorm, a transformer, and early exits through `protect`."""

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import edgeward
from acceptance.acceptance_jobs import blobs
from edgeward.core.errors import ModelError
from edgeward.deploy import verify
from edgeward.nets import NETS
from edgeward.train.part import Schedule

GECKO = {"name": "gecko:crossfit", "teachers": 2, "excluded": 1, "patience": 1.0}
SMALL = {
    "small_cnn": {"channels": 1, "size": 8, "classes": 3, "width": 4},
    "vit": {"channels": 1, "size": 8, "patch": 4, "dimension": 8, "depth": 1, "heads": 2, "classes": 3},
}


def protected(factory, workdir, recipes):
    x, y = (torch.from_numpy(part) for part in blobs(160, (1, 8, 8)))
    return edgeward.protect(
        factory,
        train=TensorDataset(x[:90], y[:90]),
        holdout=TensorDataset(x[90:], y[90:]),
        recipes=recipes,
        schedule=Schedule(epochs=2, batch=45),
        threats=[edgeward.MembershipInference(shadows=4, canaries=12, kinds=("mislabelled",))],
        workdir=workdir,
    )


@pytest.mark.parametrize(("name", "recipes"), [("small_cnn", ["none", GECKO]), ("vit", ["int8"])])
def test_a_network_of_images_is_protected(name, recipes, tmp_path):
    result = protected(lambda: NETS[name](**SMALL[name]), tmp_path, recipes)
    assert result.report["failed"] == []
    assert len(result.report["candidates"]) == len(recipes)
    for candidate in result.report["candidates"]:
        assert candidate["cost"]["file_bytes"] > 0
        assert (candidate["cost"].get("binary_weights", 0) > 0) == (candidate["recipe"] == "gecko:crossfit")
    for choice in result.candidates():
        assert verify(choice.export(tmp_path / "bundles" / choice.candidate.digest)).vectors > 0


def test_early_exits_are_one_clear_error_and_one_exit_works(tmp_path):
    def several() -> nn.Module:
        return NETS["early_exit_cnn"](channels=1, classes=3, widths=(4, 4))

    with pytest.raises(ModelError, match="return one exit, the last for instance"):
        protected(several, tmp_path, ["none"])
    assert list(tmp_path.iterdir()) == []

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = several()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.body(x)[-1]

    assert protected(Last, tmp_path, ["none"]).report["chosen"]
