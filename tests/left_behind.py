"""What a test may not leave behind in the process it ran in, where it would alter the tests after it.

The order of the tests and the number of workers then alter nothing. What is looked at: the exception that the thread
takes for being handled (every later exception gets it as its context), the environment, the working directory, signal
handlers, trace functions, and torch's threads and default type.
"""

import os
import signal
import sys

import torch

# Libraries set some of theirs at first use, pytest sets its own for each test.
_OURS, _OTHERS = "EDGEWARD", "PYTEST"


def state():
    """Return what is looked at, by name."""
    return {
        "exception being handled": repr(sys.exc_info()[1]),
        "environment": {name: value for name, value in os.environ.items() if not name.startswith(_OTHERS)},
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
            changed = sorted(key for key in {**was, **now} if was.get(key) != now.get(key) and _counts(key, was))
            if changed:
                found.append(f"{name}: {', '.join(changed)}")
        elif was != now:
            found.append(f"{name}: {was} before, {now} after")
    return found


def _counts(key, was):
    """Return whether a change of this variable is of the test: it was set before, or is one of edgeward."""
    return key in was or key.startswith(_OURS)
