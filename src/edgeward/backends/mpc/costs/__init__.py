"""What a network would cost under protocols of our own and of others: closed forms, layer by layer."""

from edgeward.backends.mpc.costs.cheetah import Cheetah as Cheetah
from edgeward.backends.mpc.costs.dealer import DealerModel as DealerModel
from edgeward.backends.mpc.costs.homomorphic import SciHe as SciHe
from edgeward.backends.mpc.costs.model import COST_MODELS as COST_MODELS
from edgeward.backends.mpc.costs.model import CostModel as CostModel
from edgeward.backends.mpc.costs.model import LayerPrice as LayerPrice
from edgeward.backends.mpc.costs.model import PriceList as PriceList
from edgeward.backends.mpc.costs.oblivious import SciOt as SciOt
from edgeward.backends.mpc.costs.replicated import Replicated as Replicated
