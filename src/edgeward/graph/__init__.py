"""Floor 1: the typed layer graph of a network and its exact rewrites."""

from edgeward.graph.capture import capture as capture
from edgeward.graph.network import Network as Network
from edgeward.graph.network import Node as Node
from edgeward.graph.network import Value as Value
from edgeward.graph.operators import OPERATORS as OPERATORS
from edgeward.graph.operators import Operator as Operator
from edgeward.graph.program import capture_program as capture_program
