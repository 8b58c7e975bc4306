"""Secret tensors: plain functions on values that no party knows, with gradients."""
