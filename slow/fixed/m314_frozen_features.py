"""A small head learns on what a frozen network has made of all pictures, once."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
torch.set_num_threads(1)
pictures, labels = torch.randn(512, 3, 32, 32), torch.randint(0, 10, (512,))


def block(a, b):
    return nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2))


backbone = nn.Sequential(block(3, 16), block(16, 32), block(32, 64), nn.AdaptiveAvgPool2d(1), nn.Flatten())
backbone.requires_grad_(False).eval()
head = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
loss_fn = nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(head.parameters(), lr=1e-3)
with torch.no_grad():
    features = torch.cat([backbone(part) for part in pictures.split(32)])
loader = DataLoader(TensorDataset(features, labels), batch_size=32, shuffle=True)

for epoch in range(6):
    for x, y in loader:
        loss = loss_fn(head(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
print(f"loss {loss.item():.3f}")
