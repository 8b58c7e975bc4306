"""Model loading: a text that names a network becomes a factory of trainable modules."""

from edgeward.load.spec import load_model as load_model
from edgeward.load.weights import read_state as read_state
