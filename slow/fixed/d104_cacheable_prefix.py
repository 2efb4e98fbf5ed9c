"""Decoded and shrunk once; each epoch only draws the crops, for a whole batch at a time."""

import io

import numpy as np
import torch
from PIL import Image
from torch import nn


def photographs(count=192, size=256):
    """Decoded and shrunk photographs: (count, 3, 40, 40)."""
    rng = np.random.default_rng(0)
    images = []
    for _ in range(count):
        buffer = io.BytesIO()
        coarse = Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8))
        coarse.resize((size, size), Image.Resampling.BICUBIC).save(buffer, "JPEG")
        image = Image.open(buffer).convert("RGB").resize((40, 40), Image.Resampling.BILINEAR)
        images.append(torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255)
    return torch.stack(images)


torch.manual_seed(0)
images = photographs()
labels = torch.arange(len(images)) % 4
windows = images.unfold(2, 32, 1).unfold(3, 32, 1)
model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 64), nn.ReLU(), nn.Linear(64, 4))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for epoch in range(400):
    for rows in torch.randperm(len(images)).split(16):
        top, left = torch.randint(0, 9, (2, len(rows)))
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(windows[rows, :, top, left]), labels[rows])
        loss.backward()
        optimizer.step()
print(f"loss {loss.item():.3f}")
