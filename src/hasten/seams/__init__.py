"""The places where an unmodified script can be watched and changed, one file a place."""
