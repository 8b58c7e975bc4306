"""Splits to compare MirrorNet with: all, nothing, some layers, large or changed weights, disguise, branches, slices."""

from edgeward.recipes.splits import deep as deep
from edgeward.recipes.splits import ends as ends
from edgeward.recipes.splits import magnitude as magnitude
from edgeward.recipes.splits import nnsplitter as nnsplitter
from edgeward.recipes.splits import shadownet as shadownet
from edgeward.recipes.splits import tbnet as tbnet
from edgeward.recipes.splits import teeslice as teeslice
from edgeward.recipes.splits.split import SPLITS as SPLITS
from edgeward.recipes.splits.split import Split as Split
from edgeward.recipes.splits.split import Subject as Subject
