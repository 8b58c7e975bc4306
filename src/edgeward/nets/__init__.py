"""Floor 2: reference networks, one file per architecture, registered by name in `NETS`."""

from edgeward.nets.alexnet_small import alexnet_small as alexnet_small
from edgeward.nets.densenet import densenet as densenet
from edgeward.nets.early_exit_cnn import early_exit_cnn as early_exit_cnn
from edgeward.nets.lenet import lenet as lenet
from edgeward.nets.mlp import mlp as mlp
from edgeward.nets.mobilenet_v2 import mobilenet_v2 as mobilenet_v2
from edgeward.nets.nin import nin as nin
from edgeward.nets.registry import NETS as NETS
from edgeward.nets.resnet import resnet as resnet
from edgeward.nets.small_cnn import small_cnn as small_cnn
from edgeward.nets.vgg import vgg as vgg
from edgeward.nets.vit import vit as vit
