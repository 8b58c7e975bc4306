"""A public backbone that ends after a block of ResNet-20, beside the whole network in the secure world.

The rows of `tee-splits` that meet its target of the black-box level within two points of accuracy, by themselves: no
table of other splits, one victim. On processor cores the thief is weaker still: 50 steps and three variants.
"""

from dataclasses import replace

from benchmarks import tee_splits

NAME = "tee-splits-blocks"
DESCRIPTION = "ResNet-20 (CIFAR-10) with a public backbone of one block: accuracy, stealing ratio, RAM, overhead"
SLOW = "as tee-splits, for one network; goes on from runs/tee-splits"
ROWS = ("whole", "mirrornet-public-from-block-2")


def settings() -> tee_splits.Settings:
    """Return the settings of `tee-splits` for these rows."""
    found = tee_splits.Settings.here()
    if found.reduced:
        variants = ("as it is", "fine-tuned", "new head")
        found = replace(found, attack_steps=50, attack_epochs=4, attack_variants=variants)
    return replace(found, strategies=ROWS, mobilenet=replace(found.mobilenet, budgets=()))


def run() -> dict:
    """Measure the rows that are not in the work folder of `tee-splits` yet."""
    return tee_splits.run(settings())
