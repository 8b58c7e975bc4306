"""Every test leaves the process as it found it."""

import pytest

from left_behind import differences, state

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
