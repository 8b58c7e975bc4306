"""Floor 1: the typed layer graph of a network and its exact rewrites."""

from edgeward.graph.capture import capture as capture
from edgeward.graph.fold import fold_batch_norm as fold_batch_norm
from edgeward.graph.fold import remove_identities as remove_identities
from edgeward.graph.fold_scale import fold_binary_scales as fold_binary_scales
from edgeward.graph.liveness import LivenessPlan as LivenessPlan
from edgeward.graph.liveness import peak_activation_bytes as peak_activation_bytes
from edgeward.graph.module import to_module as to_module
from edgeward.graph.network import Network as Network
from edgeward.graph.network import Node as Node
from edgeward.graph.network import Value as Value
from edgeward.graph.operators import OPERATORS as OPERATORS
from edgeward.graph.operators import Operator as Operator
from edgeward.graph.partition import Cut as Cut
from edgeward.graph.partition import stages as stages
from edgeward.graph.partition import subnetwork as subnetwork
from edgeward.graph.program import capture_program as capture_program
