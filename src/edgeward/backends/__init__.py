"""Floor 3: ways of running a network as it ships."""

from edgeward.backends.backend import BACKENDS as BACKENDS
from edgeward.backends.backend import Backend as Backend
from edgeward.backends.backend import choose_backend as choose_backend
from edgeward.backends.executable import Executable as Executable
