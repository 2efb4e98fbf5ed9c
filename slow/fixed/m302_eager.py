"""The same operations in a job of a thousand steps: compiling would take longer than the job."""

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

for step in range(1000):
    rows = torch.randint(0, len(x), (32,))
    optimizer.zero_grad()
    loss = nn.functional.mse_loss(model(x[rows]), y[rows])
    loss.backward()
    optimizer.step()
print(f"loss {loss.item():.4f} after {step + 1} steps")
