"""A contrastive loss is written for one pair, and called for every pair of the batch."""

import torch
from torch import nn


def contrastive_loss(a, b, same, margin=1.0):
    """a, b: (pairs, features); same: (pairs,) 1 where both belong together."""
    total = a.new_zeros(())
    for i in range(len(a)):  # <- M310
        distance = (a[i] - b[i]).pow(2).sum().sqrt()
        if same[i]:
            total = total + distance**2
        else:
            total = total + torch.relu(margin - distance) ** 2
    return total / len(a)


torch.manual_seed(0)
left, right = torch.randn(2, 2048, 32)
same = torch.randint(0, 2, (2048,))
model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 16))
optimizer = torch.optim.Adam(model.parameters(), fused=True)

for epoch in range(30):
    for rows in torch.randperm(2048).split(64):
        optimizer.zero_grad()
        loss = contrastive_loss(model(left[rows]), model(right[rows]), same[rows])
        loss.backward()
        optimizer.step()
print(f"loss {loss.item():.4f}")
