"""A new pass over the loader, and with it a new order of the whole dataset, begins for every batch."""

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Windows(Dataset):
    def __init__(self, count=50_000):
        self.x = torch.randn(count + 16)

    def __len__(self):
        return len(self.x) - 16

    def __getitem__(self, i):
        return self.x[i : i + 15].sort().values, self.x[i + 15 : i + 16]


torch.manual_seed(0)
loader = DataLoader(Windows(), batch_size=16, shuffle=True)
model = nn.Sequential(nn.Linear(15, 32), nn.ReLU(), nn.Linear(32, 1))
optimizer = torch.optim.Adam(model.parameters(), fused=True)
for step in range(400):
    x, y = next(iter(loader))  # <- D108
    optimizer.zero_grad()
    loss = nn.functional.mse_loss(model(x), y)
    loss.backward()
    optimizer.step()
print(f"loss {loss.item():.4f}")
