"""Mirrors: a backbone for the normal world and a companion monitor for the secure one, built and trained."""

from edgeward.transforms.mirror.mirrored import MirrorModule as MirrorModule
from edgeward.transforms.mirror.monitor import Monitor as Monitor
from edgeward.transforms.mirror.monitor import monitor_network as monitor_network
from edgeward.transforms.mirror.monitor import tap_shapes as tap_shapes
from edgeward.transforms.mirror.objective import MirrorObjective as MirrorObjective
from edgeward.transforms.mirror.plan import Block as Block
from edgeward.transforms.mirror.plan import MonitorPlan as MonitorPlan
from edgeward.transforms.mirror.plan import Tap as Tap
from edgeward.transforms.mirror.tapped import tapped as tapped
