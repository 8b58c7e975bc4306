"""Floor 0: the types every other floor speaks in."""

from edgeward.core.budget import Budget as Budget
from edgeward.core.budget import Limit as Limit
from edgeward.core.candidate import Candidate as Candidate
from edgeward.core.claim import Claim as Claim
from edgeward.core.cost import Cost as Cost
from edgeward.core.cost import Quantity as Quantity
from edgeward.core.frontier import Frontier as Frontier
from edgeward.core.frontier import Measured as Measured
from edgeward.core.interval import Estimate as Estimate
from edgeward.core.measurement import AttackResult as AttackResult
from edgeward.core.measurement import LayerCost as LayerCost
from edgeward.core.measurement import Measurement as Measurement
from edgeward.core.progress import Silent as Silent
from edgeward.core.progress import Watcher as Watcher
from edgeward.core.randomness import SecretRandomness as SecretRandomness
from edgeward.core.randomness import Seed as Seed
from edgeward.core.registry import Registry as Registry
from edgeward.core.threat import MembershipInference as MembershipInference
from edgeward.core.threat import Threat as Threat
