"""One big array holds all samples; it is read whole to hand out one row."""

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Rows(Dataset):
    def __init__(self, path, count):
        self.path = path
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        row = np.load(self.path)[i]  # <- D106
        return torch.from_numpy(row[:-1]), torch.from_numpy(row[-1:])


torch.manual_seed(0)
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "rows.npy"
    np.save(path, np.random.default_rng(0).standard_normal((4000, 65), dtype=np.float32))
    loader = DataLoader(Rows(path, 4000), batch_size=32, shuffle=True)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for epoch in range(2):
        for x, y in loader:
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
    print(f"loss {loss.item():.4f}")
