"""A small network and the embedded digits, in the files that a user of the command line would give."""

import numpy as np
from sklearn.datasets import load_digits

NET = """
from torch import nn
def net():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )
"""


def write_task(folder):
    """Write net.py, data.npz and five records, x.npy; return records and labels."""
    digits = load_digits()
    x, y = (digits.images[:500, None] / 16).astype(np.float32), digits.target[:500].astype(np.int64)
    np.savez(folder / "data.npz", x=x, y=y)
    np.save(folder / "x.npy", x[:5])
    (folder / "net.py").write_text(NET)
    return x, y
