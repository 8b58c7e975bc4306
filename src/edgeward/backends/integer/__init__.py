"""The int8 form: a quantised network as exact integers, and as plain C for devices without an operating system."""
