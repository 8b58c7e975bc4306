"""Floor 7: the command line; every verb is one call of a lower floor."""

from edgeward.cli.entry import main as main
