"""A table that is one tensor already is handed out row by row and stacked again."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
features = torch.randn(20_000, 32)
target = features @ torch.randn(32, 1) + 0.1 * torch.randn(20_000, 1)
loader = DataLoader(TensorDataset(features, target), batch_size=256, shuffle=True)
model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.Adam(model.parameters(), fused=True)

for epoch in range(20):
    for x, y in loader:  # <- D102
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
print(f"loss {loss.item():.4f}")
