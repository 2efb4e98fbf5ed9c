"""A script as it grows over the weeks: every trouble in it was once a good idea, or was never looked at again."""

import io
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Photographs(Dataset):
    def __init__(self, count=160, size=160):
        rng = np.random.default_rng(0)
        self.files = []
        for _ in range(count):
            buffer = io.BytesIO()
            coarse = Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8))
            coarse.resize((size, size), Image.Resampling.BICUBIC).save(buffer, "JPEG")
            self.files.append(buffer.getvalue())

    def __len__(self):
        return len(self.files)

    def __getitem__(self, i):
        image = Image.open(io.BytesIO(self.files[i])).resize((24, 24))
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255, i % 4


def validate(model, images, labels):
    model.eval()
    loss = nn.functional.cross_entropy(model(images), labels).item()  # <- E601
    model.train()
    return loss


def log_weights(file, step, model):
    for name, p in model.named_parameters():
        counts, edges = np.histogram(p.detach().numpy(), bins=64)  # <- S501
        file.write(json.dumps({"step": step, "name": name, "counts": counts.tolist(), "edges": edges.tolist()}) + "\n")


torch.manual_seed(0)
torch.autograd.set_detect_anomaly(True)  # <- M308
loader = DataLoader(Photographs(), batch_size=8, shuffle=True)
held_out = torch.rand(256, 3, 24, 24), torch.randint(0, 4, (256,))
hidden = [layer for _ in range(8) for layer in (nn.Linear(128, 128), nn.Tanh())]
model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 128), nn.Tanh(), *hidden, nn.Linear(128, 4))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, foreach=False)

total = 0.0
step = 0
with tempfile.TemporaryDirectory() as folder, open(Path(folder) / "weights.jsonl", "w") as log:
    for epoch in range(15):
        for images, labels in loader:  # <- D101, D103
            optimizer.zero_grad(set_to_none=False)  # <- O403
            loss = nn.functional.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()  # <- O401, O402
            total += loss  # <- G701
            log_weights(log, step, model)
            step += 1
            if step % 4 == 0:
                torch.save([model.state_dict(), optimizer.state_dict()], Path(folder) / "last.pt")  # <- E603
            if step % 5 == 0:
                validation = validate(model, *held_out)
print(f"loss {total / step:.3f} validation {validation:.3f}")
