"""A checkpoint is written after every second step, over the one before."""

import tempfile
from pathlib import Path

import torch
from torch import nn

torch.manual_seed(0)
x = torch.randn(4096, 128)
y = x.flip(1)
model = nn.Sequential(nn.Linear(128, 512), nn.ReLU(), nn.Linear(512, 128))
optimizer = torch.optim.Adam(model.parameters(), fused=True)

step = 0
with tempfile.TemporaryDirectory() as folder:
    for epoch in range(10):
        for rows in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
            step += 1
            if step % 2 == 0:
                state = {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
                torch.save(state, Path(folder) / "last.pt")  # <- E603
print(f"loss {loss.item():.4f}")
