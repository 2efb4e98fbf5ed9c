"""Gradients are dropped; backward writes them once."""

import torch
from torch import nn

torch.manual_seed(0)
x = torch.randn(1024, 512)
y = x.roll(1, dims=1)
model = nn.Sequential(nn.Linear(512, 2048), nn.ReLU(), nn.Linear(2048, 512))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

for epoch in range(10):
    for rows in torch.randperm(len(x)).split(16):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x[rows]), y[rows])
        loss.backward()
        optimizer.step()
print(f"loss {loss.item():.4f}")
