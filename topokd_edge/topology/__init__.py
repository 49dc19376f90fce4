"""Sublevel persistence of a one-dimensional signal, and persistence images of it."""
