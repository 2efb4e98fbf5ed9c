"""A contrastive loss for the whole batch at once. The loop over layers is a loop, too, but each runs another layer."""

import torch
from torch import nn


def contrastive_loss(a, b, same, margin=1.0):
    """a, b: (pairs, features); same: (pairs,) 1 where both belong together."""
    distance = (a - b).pow(2).sum(dim=1).sqrt()
    return torch.where(same.bool(), distance**2, torch.relu(margin - distance) ** 2).mean()


class Tower(nn.Module):
    def __init__(self, width=32, depth=12):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))

    def forward(self, x):
        for layer in self.layers:
            x = x + torch.tanh(layer(x))
        return x


torch.manual_seed(0)
left, right = torch.randn(2, 2048, 32)
same = torch.randint(0, 2, (2048,))
model = Tower()
optimizer = torch.optim.Adam(model.parameters(), fused=True)

for epoch in range(40):
    for rows in torch.randperm(2048).split(64):
        optimizer.zero_grad()
        loss = contrastive_loss(model(left[rows]), model(right[rows]), same[rows])
        loss.backward()
        optimizer.step()
print(f"loss {loss.item():.4f}")
