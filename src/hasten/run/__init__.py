"""Trials, fidelity, search: remedies measured and proved before they are kept."""
