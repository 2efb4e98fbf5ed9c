"""The running loss is a sum of numbers."""

import torch
from torch import nn

torch.manual_seed(0)
x = torch.randn(4096, 64)
y = x[:, :1].abs()
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 1))
optimizer = torch.optim.Adam(model.parameters(), fused=True)

running = 0.0
steps = 0
for epoch in range(110):
    for rows in torch.randperm(len(x)).split(64):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x[rows]), y[rows])
        loss.backward()
        optimizer.step()
        running += loss.item()
        steps += 1
print(f"loss {running / steps:.4f}")
