"""A script to a report: phases, ceilings, growth."""
