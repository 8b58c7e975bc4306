"""Stealing of split models: what the visible part and label queries give beyond the black box."""

from edgeward.attacks.extraction.attacker import Attacker as Attacker
from edgeward.attacks.extraction.audit import audit_split as audit_split
from edgeward.attacks.extraction.audit import query_budgets as query_budgets
from edgeward.attacks.extraction.exposure import Exposure as Exposure
from edgeward.attacks.extraction.exposure import Obfuscation as Obfuscation
from edgeward.attacks.extraction.exposure import fitting_prior as fitting_prior
from edgeward.attacks.extraction.recovery import Recovery as Recovery
from edgeward.attacks.extraction.recovery import recover as recover
from edgeward.attacks.extraction.references import References as References
from edgeward.attacks.extraction.references import black_boxes as black_boxes
from edgeward.attacks.extraction.references import measure_references as measure_references
from edgeward.attacks.extraction.report import StealingReport as StealingReport
