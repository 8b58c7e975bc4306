"""MirrorNet: a public or weakened backbone in the normal world, a small companion monitor in the secure one."""

from edgeward.recipes.mirrornet.generator import Found as Found
from edgeward.recipes.mirrornet.generator import Search as Search
from edgeward.recipes.mirrornet.generator import generate as generate
from edgeward.recipes.mirrornet.mirroring import Mirrored as Mirrored
from edgeward.recipes.mirrornet.mirroring import mirror as mirror
from edgeward.recipes.mirrornet.mirrornet import MirrorNet as MirrorNet
from edgeward.recipes.mirrornet.scoring import Limits as Limits
from edgeward.recipes.mirrornet.scoring import Score as Score
from edgeward.recipes.mirrornet.splitting import deployment as deployment
from edgeward.recipes.mirrornet.splitting import exposure as exposure
from edgeward.recipes.mirrornet.strategy import Strategy as Strategy
