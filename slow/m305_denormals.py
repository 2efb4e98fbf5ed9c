"""Rare words: between two of its appearances a word's momentum decays to subnormal numbers, and stays there."""

import torch
from torch import nn

torch.manual_seed(0)
words = torch.randint(0, 10_000, (4096, 4))
labels = words[:, 0] % 2
model = nn.Sequential(nn.EmbeddingBag(10_000, 32), nn.Linear(32, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

for epoch in range(2):
    for row in torch.randperm(len(words)).split(2):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(words[row]), labels[row])
        loss.backward()
        optimizer.step()  # <- M305
print(f"loss {loss.item():.3f}")
