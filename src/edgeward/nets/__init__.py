"""Floor 2: reference networks, one file per architecture, registered by name in `NETS`."""

# Imported for its entries in PRETRAINED.
from edgeward.nets import published as published
from edgeward.nets.alexnet_small import alexnet_small as alexnet_small
from edgeward.nets.densenet import densenet as densenet
from edgeward.nets.densenet_imagenet import densenet_imagenet as densenet_imagenet
from edgeward.nets.ds_cnn import ds_cnn as ds_cnn
from edgeward.nets.early_exit_cnn import early_exit_cnn as early_exit_cnn
from edgeward.nets.lenet import lenet as lenet
from edgeward.nets.mlp import mlp as mlp
from edgeward.nets.mobilenet_v1 import mobilenet_v1 as mobilenet_v1
from edgeward.nets.mobilenet_v2 import mobilenet_v2 as mobilenet_v2
from edgeward.nets.mobilenet_v3 import mobilenet_v3 as mobilenet_v3
from edgeward.nets.nin import nin as nin
from edgeward.nets.pretrained import PRETRAINED as PRETRAINED
from edgeward.nets.pretrained import pretrained as pretrained
from edgeward.nets.registry import NETS as NETS
from edgeward.nets.resnet import resnet as resnet
from edgeward.nets.resnet_imagenet import resnet_imagenet as resnet_imagenet
from edgeward.nets.resnet_tiny import resnet_tiny as resnet_tiny
from edgeward.nets.small_cnn import small_cnn as small_cnn
from edgeward.nets.vgg import vgg as vgg
from edgeward.nets.vgg_imagenet import vgg_imagenet as vgg_imagenet
from edgeward.nets.vit import vit as vit
