"""Floor 3: parts that change the objective or the answers."""

from edgeward.defenses.distillation import CrossFitDistillation as CrossFitDistillation
from edgeward.defenses.dp_sgd import DpSgd as DpSgd
from edgeward.defenses.early_stopping import EarlyStopping as EarlyStopping
from edgeward.defenses.input_noise import InputNoise as InputNoise
