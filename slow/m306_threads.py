"""All but one core are told to stand by while large matrix products run."""

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
x = torch.randn(4096, 512)
y = x.roll(1, dims=1)
model = nn.Sequential(nn.Linear(512, 1024), nn.ReLU(), nn.Linear(1024, 512))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

for epoch in range(16):
    for rows in torch.randperm(len(x)).split(512):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x[rows]), y[rows])  # <- M306
        loss.backward()
        optimizer.step()
print(f"loss {loss.item():.4f}")
