"""One file per format; each turns a path into recordings and says what it saw."""
