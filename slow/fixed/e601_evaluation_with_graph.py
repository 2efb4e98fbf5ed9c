"""The validation loss is computed without a graph."""

import torch
from torch import nn


@torch.no_grad()
def validate(model, x, y):
    model.eval()
    total = 0.0
    for rows in torch.arange(len(x)).split(256):
        total += nn.functional.mse_loss(model(x[rows]), y[rows]).item() * len(rows)
    model.train()
    return total / len(x)


torch.manual_seed(0)
x, x_val = torch.randn(4096, 64), torch.randn(2048, 64)
y, y_val = x[:, :1].sin(), x_val[:, :1].sin()
model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Dropout(0.1), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 1))
optimizer = torch.optim.Adam(model.parameters(), fused=True)

for epoch in range(30):
    for rows in torch.randperm(len(x)).split(64):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x[rows]), y[rows])
        loss.backward()
        optimizer.step()
    validation = validate(model, x_val, y_val)
print(f"loss {loss.item():.4f} validation {validation:.4f}")
