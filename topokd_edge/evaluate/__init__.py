"""Metrics per subject, calibration, and paired comparisons with a verdict in words."""
