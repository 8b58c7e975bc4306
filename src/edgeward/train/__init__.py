"""Floor 2: one training loop for one model or many at once."""

from edgeward.train.fit import fit as fit
from edgeward.train.fit import train_many as train_many
from edgeward.train.part import Batch as Batch
from edgeward.train.part import Context as Context
from edgeward.train.part import CrossEntropy as CrossEntropy
from edgeward.train.part import Needs as Needs
from edgeward.train.part import Part as Part
from edgeward.train.part import Schedule as Schedule
from edgeward.train.population import Factory as Factory
from edgeward.train.population import Population as Population
