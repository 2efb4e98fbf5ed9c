"""Only the crop is random, but the photograph is decoded and shrunk for every crop."""

import io
import random

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Decode:
    def __call__(self, data):
        return Image.open(io.BytesIO(data)).convert("RGB")


class Shrink:
    def __call__(self, image):
        return image.resize((40, 40), Image.Resampling.BILINEAR)


class RandomCrop:
    def __call__(self, image):
        left, top = random.randint(0, 8), random.randint(0, 8)
        return image.crop((left, top, left + 32, top + 32))


class ToTensor:
    def __call__(self, image):
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


class Compose:
    def __init__(self, transforms):
        self.transforms = transforms

    def __call__(self, x):
        for transform in self.transforms:
            x = transform(x)
        return x


class Photographs(Dataset):
    def __init__(self, transform, count=192, size=256):
        rng = np.random.default_rng(0)
        self.transform = transform
        self.files = []
        for _ in range(count):
            buffer = io.BytesIO()
            coarse = Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8))
            coarse.resize((size, size), Image.Resampling.BICUBIC).save(buffer, "JPEG")
            self.files.append(buffer.getvalue())

    def __len__(self):
        return len(self.files)

    def __getitem__(self, i):
        return self.transform(self.files[i]), i % 4


random.seed(0)
torch.manual_seed(0)
dataset = Photographs(Compose([Decode(), Shrink(), RandomCrop(), ToTensor()]))
loader = DataLoader(dataset, batch_size=16, shuffle=True)
model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 64), nn.ReLU(), nn.Linear(64, 4))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for epoch in range(28):
    for x, y in loader:  # <- D104
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
print(f"loss {loss.item():.3f}")
