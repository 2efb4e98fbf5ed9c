"""Frozen nouns shared by every part. Standard library only."""

import os

OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep  # where hasten's own files lie
