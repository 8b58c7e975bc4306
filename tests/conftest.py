"""Every test leaves the process as it found it, and no drawn example has a deadline.

`HYPOTHESIS_PROFILE=thorough` draws many more examples where a test does not say how many.
"""

import os

import pytest
from hypothesis import settings

from left_behind import differences, state

settings.register_profile("quick", max_examples=30, deadline=None)
settings.register_profile("thorough", max_examples=300, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

_BEFORE = pytest.StashKey()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item):
    item.stash[_BEFORE] = state()
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item):
    result = yield
    left = differences(item.stash[_BEFORE], state())
    if left:
        pytest.fail("this test leaves something behind in its process: " + "; ".join(left), pytrace=False)
    return result
