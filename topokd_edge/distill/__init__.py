"""Training: the two teachers, the student from scratch, and the student distilled from both."""
