"""A real board on a wire: frames, the port, one connection, and what the firmware on the board is asked."""
