"""Whole batches are indexed out of the tensors."""

import torch
from torch import nn

torch.manual_seed(0)
features = torch.randn(20_000, 32)
target = features @ torch.randn(32, 1) + 0.1 * torch.randn(20_000, 1)
model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.Adam(model.parameters(), fused=True)

for epoch in range(80):
    for rows in torch.randperm(len(features)).split(256):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(features[rows]), target[rows])
        loss.backward()
        optimizer.step()
print(f"loss {loss.item():.4f}")
