"""Floor 5: published systems as named compositions, one file each."""

from edgeward.recipes.dp_sgd import DpSgdTraining as DpSgdTraining
from edgeward.recipes.early_stop import EarlyStop as EarlyStop
from edgeward.recipes.gecko import Gecko as Gecko
from edgeward.recipes.mirrornet.mirrornet import MirrorNet as MirrorNet
from edgeward.recipes.none import Undefended as Undefended
from edgeward.recipes.prune_retrain import PruneRetrain as PruneRetrain
from edgeward.recipes.quantized import PostTrainingInt8 as PostTrainingInt8
from edgeward.recipes.quantized import QuantizationAware as QuantizationAware
from edgeward.recipes.recipe import RECIPES as RECIPES
from edgeward.recipes.recipe import Recipe as Recipe
from edgeward.recipes.recipe import resolve as resolve
