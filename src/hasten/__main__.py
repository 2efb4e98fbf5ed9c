"""``python -m hasten``."""

import os
import sys

if sys.path and sys.path[0] == os.getcwd():  # as by the `hasten` command: a script's folder may hold a statistics.py
    del sys.path[0]

from hasten.cli.main import main

sys.exit(main())
