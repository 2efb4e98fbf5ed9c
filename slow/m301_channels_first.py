"""A convolutional network on channels-first memory."""

import torch
from torch import nn

torch.manual_seed(0)
x = torch.rand(256, 3, 32, 32)
y = torch.randint(0, 10, (256,))
model = nn.Sequential(
    nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
    nn.Flatten(), nn.Linear(32 * 64, 10),
)  # fmt: skip
optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

for epoch in range(15):
    for rows in torch.randperm(len(x)).split(16):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x[rows]), y[rows])  # <- M301
        loss.backward()
        optimizer.step()
print(f"loss {loss.item():.3f}")
