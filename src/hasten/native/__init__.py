"""C++ of ours, compiled where it runs: see ``native.compiled``."""
