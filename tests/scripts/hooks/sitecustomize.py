"""What a test changes inside hasten, in the watched process: which remedies are tried, and how soon.

``LAB`` holds JSON: ``remedies`` (keys of ``lab_remedies.KINDS``), ``patches`` (names of functions there). Scripts are
short, so the window is short, too; every trial is taken for a success, so that what comes after one is tested.
"""

import os

if os.environ.get("LAB") and os.environ.get("HASTEN_SESSION"):
    import json

    import hasten.boot.agent as agent
    from hasten.seams import guard

    start = agent.start

    def start_changed(*args):  # type: ignore[no-untyped-def]
        import lab_remedies

        lab_remedies.install(json.loads(os.environ["LAB"]))
        start(*args)
        guard.mute(False)  # tests wait for what is told of trials

    agent.start = start_changed
