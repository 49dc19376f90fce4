"""A bundle run on raw recordings: whether they fit, answers, smoothing, the timeline and its files."""
