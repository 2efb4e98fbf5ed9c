"""A long job of many small operations, each started from Python. It ends when its time is up."""

import time

import torch
from torch import nn


class Gated(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        self.inner, self.gate = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x):
        return x + torch.sigmoid(self.gate(x)) * torch.tanh(self.inner(x)) * 0.5


torch.manual_seed(0)
x = torch.randn(4096, 32)
y = x.cos()
model = nn.Sequential(*(Gated() for _ in range(8)))
optimizer = torch.optim.Adam(model.parameters(), fused=True)

end = time.monotonic() + 4
for step in range(1_000_000):
    if time.monotonic() > end:
        break
    rows = torch.randint(0, len(x), (32,))
    optimizer.zero_grad()
    loss = nn.functional.mse_loss(model(x[rows]), y[rows])  # <- M302
    loss.backward()
    optimizer.step()
print(f"loss {loss.item():.4f} after {step} steps")
