"""Recordings, windows of them, and splits by subject."""
