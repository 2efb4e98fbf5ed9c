"""Rows are converted once; the collate function stacks them."""

import csv
import io
import random

import torch
from torch import nn
from torch.utils.data import DataLoader


def collate(batch):
    table = torch.stack(batch)
    return table[:, :-1], table[:, -1:]


random.seed(0)
torch.manual_seed(0)
table = "\n".join(",".join(f"{random.gauss(0, 1):.4f}" for _ in range(201)) for _ in range(2048))
rows = torch.tensor([[float(value) for value in row] for row in csv.reader(io.StringIO(table))])
loader = DataLoader(list(rows), batch_size=64, shuffle=True, collate_fn=collate)
model = nn.Sequential(nn.Linear(200, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

for epoch in range(100):
    for x, y in loader:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
print(f"loss {loss.item():.4f}")
