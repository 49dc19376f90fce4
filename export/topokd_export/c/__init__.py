"""The int8 student as C99: read from its TFLite file, planned into one arena, written with its kernels."""
