"""How a time is taken: clocks, interleaved pairs, slopes, and what machine this is."""
