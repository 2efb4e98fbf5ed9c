"""Epochs are short, and every one of them starts its loader's workers anew."""

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Sequences(Dataset):
    def __init__(self, count=256):
        self.x = torch.randn(count, 64)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        x = self.x[i]
        return x, x.sort().values


if __name__ == "__main__":
    torch.manual_seed(0)
    loader = DataLoader(Sequences(), batch_size=32, shuffle=True, num_workers=2)
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64))
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    for epoch in range(30):
        for x, y in loader:  # <- D105
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
    print(f"loss {loss.item():.4f}")
