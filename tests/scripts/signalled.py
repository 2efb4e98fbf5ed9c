"""A training that is sent signals: with a handler that saves and exits with 5, or as Python has it."""

import os
import signal
import sys
import time

import torch

torch.manual_seed(0)
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
got = []


def save_and_exit(number, frame):
    got.append(number)
    torch.save({"signals": [int(n) for n in got]}, "interrupted.pt")
    print("saved", signal.Signals(number).name, len(got), flush=True)
    time.sleep(0.2)
    sys.exit(5)


def note(number, frame):
    got.append(number)


if "handler" in sys.argv:
    signal.signal(signal.SIGINT, save_and_exit)
    signal.signal(signal.SIGTERM, save_and_exit)
if "note" in sys.argv:
    signal.signal(signal.SIGUSR1, note)
with open("pid", "w") as file:
    file.write(str(os.getpid()))
limit = 400 if "note" in sys.argv else 100_000
try:
    for step in range(limit):
        optimizer.zero_grad()
        model(torch.ones(2, 4)).square().mean().backward()
        optimizer.step()
        time.sleep(0.003)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    raise
print("noted", [signal.Signals(n).name for n in got], model.weight.tolist())
