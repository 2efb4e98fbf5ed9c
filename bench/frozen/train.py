"""Transfer learning as people write it: a frozen residual network, and a head that learns. Prints each epoch."""

import time

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)


class Block(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
        self.two = nn.Sequential(nn.Conv2d(b, b, 3, 1, 1, bias=False), nn.BatchNorm2d(b))
        self.by = nn.Sequential(nn.Conv2d(a, b, 1, 2, bias=False), nn.BatchNorm2d(b))

    def forward(self, x):
        return torch.relu(self.two(self.one(x)) + self.by(x))


class Transfer(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1), Block(32, 64), Block(64, 128), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        for p in self.backbone.parameters():
            p.requires_grad = False
        self.head = nn.Sequential(nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, x):
        self.backbone.eval()
        return self.head(self.backbone(x))


def main():
    images, labels = torch.randn(1024, 3, 64, 64), torch.randint(0, 10, (1024,))
    loader = DataLoader(TensorDataset(images, labels), batch_size=32, shuffle=True)
    model = Transfer()
    optimizer = torch.optim.Adam((p for p in model.parameters() if p.requires_grad), lr=1e-3)
    loss_fn = nn.CrossEntropyLoss()
    for epoch in range(8):
        start = time.perf_counter()
        for x, y in loader:
            loss = loss_fn(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch}: loss {loss.item():.6f}, {time.perf_counter() - start:.4f} s", flush=True)


if __name__ == "__main__":
    main()
