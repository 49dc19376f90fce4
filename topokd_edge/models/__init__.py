"""Network architectures, each from one description."""
