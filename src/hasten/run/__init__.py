"""Trials, fidelity, search: remedies measured and proved before they are kept."""

from hasten.core.door import callable_as_function

callable_as_function(__name__)
