"""edgeward: take a PyTorch network to a place nobody should have to trust, and show what it costs and leaks."""

# Imported eagerly: a lazy attribute would be shadowed by the submodule of the same name.
from edgeward.audit import audit as audit
from edgeward.core import Budget as Budget
from edgeward.core import MembershipInference as MembershipInference
from edgeward.core import Seed as Seed
from edgeward.mirror import mirror as mirror
from edgeward.protect import protect as protect
