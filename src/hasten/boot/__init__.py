"""What is loaded inside the user's process. ``site/`` is the folder put on PYTHONPATH."""
