"""Device profiles: what a device offers, each number with its source and basis."""

from edgeward.devices.catalogue import devices as devices
from edgeward.devices.catalogue import load_profile as load_profile
from edgeward.devices.figure import Basis as Basis
from edgeward.devices.figure import Figure as Figure
from edgeward.devices.figure import weakest as weakest
from edgeward.devices.profile import DeviceProfile as DeviceProfile
from edgeward.devices.profile import OperatorClass as OperatorClass
from edgeward.devices.profile import Precision as Precision
from edgeward.devices.secure_world import SecureWorldProfile as SecureWorldProfile
