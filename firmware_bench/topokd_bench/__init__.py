"""Device side: runs a bundle on the device at hand and measures it. Standard library and numpy only."""
