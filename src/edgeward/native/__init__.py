"""C kernels behind one Python door, each with a portable form that gives the same bits."""

from edgeward.native.build import NativeStatus as NativeStatus
from edgeward.native.build import status as status
from edgeward.native.ordered import ordered_matmul as ordered_matmul
from edgeward.native.popcount import binary_matmul as binary_matmul
from edgeward.native.popcount import pack_signs as pack_signs
from edgeward.native.popcount import variants as variants
