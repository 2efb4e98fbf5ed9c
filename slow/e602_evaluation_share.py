"""All validation data are evaluated every ten steps."""

import torch
from torch import nn


@torch.no_grad()
def accuracy(model, x, y):
    model.eval()
    hits = sum((model(part).argmax(dim=1) == labels).sum().item() for part, labels in zip(x.split(500), y.split(500)))
    model.train()
    return hits / len(x)


torch.manual_seed(0)
x, x_val = torch.randn(8192, 64), torch.randn(5000, 64)
y, y_val = x[:, :10].argmax(dim=1), x_val[:, :10].argmax(dim=1)
model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
optimizer = torch.optim.Adam(model.parameters(), fused=True)

step = 0
for epoch in range(8):
    for rows in torch.randperm(len(x)).split(64):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
        loss.backward()
        optimizer.step()
        step += 1
        if step % 10 == 0:
            score = accuracy(model, x_val, y_val)  # <- E602
print(f"loss {loss.item():.3f} accuracy {score:.3f}")
