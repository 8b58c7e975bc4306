"""Membership attacks, one family per file; importing this room registers them."""

from edgeward.attacks.membership import base as base
from edgeward.attacks.membership import bavaria as bavaria
from edgeward.attacks.membership import calibrated as calibrated
from edgeward.attacks.membership import gap as gap
from edgeward.attacks.membership import label_ratio as label_ratio
from edgeward.attacks.membership import lira as lira
from edgeward.attacks.membership import rmia as rmia
from edgeward.attacks.membership import threshold as threshold
