"""A training that is over soon, and in a copy of its process, or one begun anew, never comes to the script's end.

``thread``: it has one of its own, so that no copies are made.
"""

import os
import sys
import threading
import time

import torch

torch.manual_seed(0)
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
began = os.getpid()
if "thread" in sys.argv:
    threading.Thread(target=time.sleep, args=(1e6,), daemon=True).start()
for step in range(24):
    optimizer.zero_grad()
    model(torch.ones(2, 4)).square().mean().backward()
    optimizer.step()
    time.sleep(0.02)
while os.getpid() != began or "HASTEN_TRIAL" in os.environ:  # as where a long evaluation comes last
    time.sleep(0.1)
