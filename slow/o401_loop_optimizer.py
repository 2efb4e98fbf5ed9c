"""A deep, narrow network: the optimizer updates a hundred small tensors one after another."""

import torch
from torch import nn

torch.manual_seed(0)
x = torch.randn(1024, 32)
y = x.cumsum(dim=1)
model = nn.Sequential(*(layer for _ in range(50) for layer in (nn.Linear(32, 32), nn.Tanh())))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, foreach=False)

for epoch in range(15):
    for rows in torch.randperm(len(x)).split(32):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x[rows]), y[rows])
        loss.backward()
        optimizer.step()  # <- O401
print(f"loss {loss.item():.3f}")
