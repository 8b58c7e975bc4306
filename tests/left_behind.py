"""What a test may not leave behind in the process it ran in, where it would alter the tests after it.

The order of the tests and the number of workers then alter nothing. What is looked at: the exception that the thread
takes for being handled (every later exception gets it as its context), the environment, the working directory, signal
handlers, trace functions, and torch's threads and default type.
"""

import os
import signal
import sys

import torch

# Set by pytest and by its workers themselves.
_OWN = ("PYTEST_CURRENT_TEST", "PYTEST_VERSION")


def state():
    """Return what is looked at, by name."""
    return {
        "exception being handled": repr(sys.exc_info()[1]),
        "environment": {name: value for name, value in os.environ.items() if name not in _OWN},
        "working directory": os.getcwd(),
        "signal handlers": {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)},
        "trace function": sys.gettrace(),
        "torch threads": torch.get_num_threads(),
        "torch default type": torch.get_default_dtype(),
    }


def differences(before, after):
    """Return a line for each part of the state that differs; of the environment only the names."""
    found = []
    for name, was in before.items():
        now = after[name]
        if name == "environment":
            was, now = (
                {key for key in was if was[key] != now.get(key)},
                {key for key in now if now[key] != was.get(key)},
            )
        if was != now:
            found.append(f"{name}: {was} before, {now} after")
    return found
