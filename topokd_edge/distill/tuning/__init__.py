"""Searching for a recipe's values on inner subjects; what is tested is never looked at."""
