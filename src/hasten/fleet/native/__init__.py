"""The compiled engine: one model at a time on each core, everything it needs in that core's cache."""
