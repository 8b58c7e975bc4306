"""Floor 4: propose, evaluate, choose."""

from edgeward.search.explore import Proposal as Proposal
from edgeward.search.explore import explore as explore
from edgeward.search.failure import Failure as Failure
from edgeward.search.store import Store as Store
