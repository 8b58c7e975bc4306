"""Device profiles: what a device offers, each number with its source and basis."""

from edgeward.devices.catalogue import devices as devices
from edgeward.devices.catalogue import load_profile as load_profile
from edgeward.devices.figure import Figure as Figure
from edgeward.devices.figure import weakest as weakest
from edgeward.devices.profile import OPERATOR_CLASSES as OPERATOR_CLASSES
from edgeward.devices.profile import PRECISIONS as PRECISIONS
from edgeward.devices.profile import DeviceProfile as DeviceProfile
