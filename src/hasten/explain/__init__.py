"""A script to a report: phases, ceilings, growth."""

from hasten.core.door import callable_as_function

callable_as_function(__name__)
