"""Photographs are decoded and shrunk once; epochs index the finished tensor."""

import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn


def draw_photographs(folder, count=192, size=256):
    """Smooth coloured noise as JPEG files."""
    rng = np.random.default_rng(0)
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8))
        coarse.resize((size, size), Image.Resampling.BICUBIC).save(folder / f"{i}_{i % 4}.jpg")


def load_photographs(folder):
    files = sorted(folder.glob("*.jpg"))
    images = [np.array(Image.open(f).convert("RGB").resize((32, 32))) for f in files]
    x = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    return x, torch.tensor([int(f.stem.split("_")[1]) for f in files])


torch.manual_seed(0)
with tempfile.TemporaryDirectory() as name:
    draw_photographs(Path(name))
    images, labels = load_photographs(Path(name))
model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 64), nn.ReLU(), nn.Linear(64, 4))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for epoch in range(400):
    for rows in torch.randperm(len(images)).split(16):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images[rows]), labels[rows])
        loss.backward()
        optimizer.step()
print(f"loss {loss.item():.3f}")
