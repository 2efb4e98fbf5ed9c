"""A large embedding, updated by Adam in one pass over its numbers."""

import torch
from torch import nn

torch.manual_seed(0)
words = torch.randint(0, 20_000, (4096, 16))
labels = words[:, 0] % 5
model = nn.Sequential(nn.EmbeddingBag(20_000, 64), nn.Linear(64, 5))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)

for epoch in range(10):
    for rows in torch.randperm(len(words)).split(64):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(words[rows]), labels[rows])
        loss.backward()
        optimizer.step()
print(f"loss {loss.item():.3f}")
