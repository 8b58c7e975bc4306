"""Floor 5: bundles, the folders that leave the house; nothing here may read records."""

from edgeward.deploy.bundle import Bundle as Bundle
from edgeward.deploy.bundle import copy_bundle as copy_bundle
from edgeward.deploy.bundle import remove_bundle as remove_bundle
from edgeward.deploy.bundle import write_bundle as write_bundle
from edgeward.deploy.manifest import FileEntry as FileEntry
from edgeward.deploy.manifest import Manifest as Manifest
from edgeward.deploy.vectors import Vectors as Vectors
from edgeward.deploy.vectors import synthetic_vectors as synthetic_vectors
from edgeward.deploy.verify import VerifyReport as VerifyReport
from edgeward.deploy.verify import verify as verify
