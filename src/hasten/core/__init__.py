"""Frozen nouns shared by every part. Standard library only."""
