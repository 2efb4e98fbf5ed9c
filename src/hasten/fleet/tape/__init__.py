"""A training step of any module as a tape: traced once by torch, run by the kernel for one model after the other."""
