"""Floor 3: attacks that measure what a model leaks; each sees its target only through an `Oracle`."""

from edgeward.attacks.attack import ATTACKS as ATTACKS
from edgeward.attacks.attack import Attack as Attack
from edgeward.attacks.attack import Fitted as Fitted
from edgeward.attacks.attack import Points as Points
from edgeward.attacks.membership.audit import audit as audit
from edgeward.attacks.membership.audit import rates as rates
from edgeward.attacks.membership.audit import score as score
from edgeward.attacks.oracle import Oracle as Oracle
from edgeward.attacks.scored import Scored as Scored
from edgeward.attacks.signals import Knowledge as Knowledge
from edgeward.attacks.signals import Signals as Signals
from edgeward.attacks.strongest import strongest as strongest
from edgeward.attacks.strongest import worst as worst
