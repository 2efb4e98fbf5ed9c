"""argv -> one call -> one report -> exit code. Loads neither torch nor rich before they are needed."""
