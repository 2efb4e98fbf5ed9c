"""The accuracy over all predictions so far is kept as two numbers."""

import torch
from torch import nn

torch.manual_seed(0)
x = torch.randn(8192, 32)
y = x[:, :4].argmax(dim=1)
model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 4))
optimizer = torch.optim.Adam(model.parameters(), fused=True)

hits = seen = 0
for epoch in range(25):
    for rows in torch.randperm(len(x)).split(64):
        optimizer.zero_grad()
        logits = model(x[rows])
        loss = nn.functional.cross_entropy(logits, y[rows])
        loss.backward()
        optimizer.step()
        hits += (logits.detach().argmax(dim=1) == y[rows]).sum().item()
        seen += len(rows)
print(f"loss {loss.item():.3f} accuracy {hits / seen:.3f}")
