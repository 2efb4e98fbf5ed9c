"""Activations of 48 MB are given back to the system and taken anew in every step."""

import torch
from torch import nn

torch.manual_seed(0)
x = torch.randn(16_384, 16)
y = x[:, :1].sign()
model = nn.Sequential(nn.Linear(16, 768), nn.ReLU(), nn.Linear(768, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

for step in range(40):
    optimizer.zero_grad()
    loss = nn.functional.mse_loss(model(x), y)  # <- M307
    loss.backward()
    optimizer.step()
print(f"loss {loss.item():.4f}")
