"""From wearable recordings to a small int8 model on the device, and the truth about it."""

__version__ = "0.1.0"
