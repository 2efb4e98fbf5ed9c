"""Feeding: caches of samples and whole-batch gathers, usable without explain or run."""
