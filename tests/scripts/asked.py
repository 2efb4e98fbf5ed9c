"""Takes as many steps as its input says, else four; has a thread of its own, so that no copies are made."""

import sys
import threading
import time

import torch

steps = int(sys.stdin.read() or "4")
threading.Thread(target=time.sleep, args=(1e6,), daemon=True).start()
torch.manual_seed(0)
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(steps):
    optimizer.zero_grad()
    model(torch.ones(2, 4)).square().mean().backward()
    optimizer.step()
    time.sleep(0.02)
print(steps)
