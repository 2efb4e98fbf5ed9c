"""Anomaly detection, once switched on to find a NaN, was never switched off."""

import torch
from torch import nn

torch.manual_seed(0)
torch.autograd.set_detect_anomaly(True)  # <- M308
x = torch.randn(2048, 64)
y = x[:, :8].sin().sum(dim=1, keepdim=True)
model = nn.Sequential(*(layer for _ in range(6) for layer in (nn.Linear(64, 64), nn.Tanh())), nn.Linear(64, 1))
optimizer = torch.optim.Adam(model.parameters(), fused=True)

for epoch in range(20):
    for rows in torch.randperm(len(x)).split(64):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x[rows]), y[rows])
        loss.backward()
        optimizer.step()
print(f"loss {loss.item():.4f}")
