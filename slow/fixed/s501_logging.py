"""Histograms of all weights are written every 200 steps."""

import json
import tempfile

import numpy as np
import torch
from torch import nn


def log_histograms(file, step, model):
    for name, p in model.named_parameters():
        counts, edges = np.histogram(p.detach().numpy(), bins=64)
        file.write(json.dumps({"step": step, "name": name, "counts": counts.tolist(), "edges": edges.tolist()}) + "\n")


torch.manual_seed(0)
x = torch.randn(2048, 64)
y = x[:, :1] * x[:, 1:2]
model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 1))
optimizer = torch.optim.Adam(model.parameters(), fused=True)

step = 0
with tempfile.TemporaryFile("w") as file:
    for epoch in range(60):
        for rows in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
            if step % 200 == 0:
                log_histograms(file, step, model)
            step += 1
print(f"loss {loss.item():.4f}")
