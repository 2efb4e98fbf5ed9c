"""Large matrix products under autocast."""

import torch
from torch import nn

torch.manual_seed(0)
x = torch.randn(2048, 512)
y = torch.randint(0, 100, (2048,))
model = nn.Sequential(nn.Linear(512, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 100))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

for epoch in range(6):
    for rows in torch.randperm(len(x)).split(128):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(x[rows])
        loss = nn.functional.cross_entropy(logits, y[rows])
        loss.backward()
        optimizer.step()
print(f"loss {loss.item():.3f}")
