"""A public model, a victim, and the audits of it that several tests look at; made once, never changed."""

import pytest

from attacks import stealing_toys as toys
from edgeward.attacks.extraction import Exposure


@pytest.fixture(scope="session")
def parent():
    """The public model: mirrored digits, other records."""
    return toys.train(toys.X[toys.PUBLIC].flip(-1), toys.Y[toys.PUBLIC], 15, 2)


@pytest.fixture(scope="session")
def victim():
    return toys.train(toys.X[toys.PRIVATE], toys.Y[toys.PRIVATE], 20, 1)


@pytest.fixture(scope="session")
def ends(victim, parent):
    return toys.ends_of(victim, parent, toys.BUDGETS)


@pytest.fixture(scope="session")
def unprotected(victim, parent, ends):
    return toys.audited(toys.no_shield(victim, parent.tensors), victim, ends, members=toys.MEMBERS)


@pytest.fixture(scope="session")
def deep(victim, parent, ends):
    hidden = Exposure.of("deep", victim, parent.tensors, hidden=toys.head(victim), taps=toys.relus(victim))
    return toys.audited(hidden, victim, ends)
