"""Records and splits: the only room that may hold records."""

# Imported for their entries in DATASETS.
from edgeward.data import adult as adult
from edgeward.data import binary_table as binary_table
from edgeward.data import cifar10 as cifar10
from edgeward.data import digits as digits
from edgeward.data import idx as idx
from edgeward.data import kws as kws
from edgeward.data import pneumonia as pneumonia
from edgeward.data import synthetic as synthetic
from edgeward.data import vww as vww
from edgeward.data.csv_source import from_csv as from_csv
from edgeward.data.datasets import DATASETS as DATASETS
from edgeward.data.datasets import load as load
from edgeward.data.folder_source import from_image_folder as from_image_folder
from edgeward.data.making import make_splits as make_splits
from edgeward.data.npz_source import from_npz as from_npz
from edgeward.data.photos import public_photos as public_photos
from edgeward.data.records import Records as Records
from edgeward.data.source import load_source as load_source
from edgeward.data.splits import Splits as Splits
from edgeward.data.torch_source import from_torch as from_torch
