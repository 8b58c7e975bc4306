"""How long tests wait, on a machine that may do much else meanwhile.

A wait for what must come ends a test that hangs, and no other: it is far longer than anything takes. What must be
noticed at once is told from what is noticed by running out of time by the channels' own limit, not by the clock: that
limit is PATIENCE, and SOON is far below it and far above what a loaded machine needs.
"""

PATIENCE = 300.0
SOON = 60.0
