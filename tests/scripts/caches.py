"""A dataset whose samples are worth keeping: three megabytes, made the same every time, here or by worker processes.

Usage: caches.py [WORKERS [persistent]]
"""

import sys
import time

import torch
from torch.utils.data import DataLoader, Dataset

workers = int(sys.argv[1]) if sys.argv[1:] else 0


class Rows(Dataset):
    def __len__(self):
        return 96

    def __getitem__(self, i):
        time.sleep(0.004 if workers else 0.0005)
        return torch.full((8192,), float(i)) / 96, float(i % 2)


torch.manual_seed(0)
loader = DataLoader(
    Rows(), batch_size=8, shuffle=True, num_workers=workers, persistent_workers="persistent" in sys.argv
)
model = torch.nn.Linear(8192, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
for epoch in range(14):
    for x, y in loader:
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(x)[:, 0], y.float())
        loss.backward()
        optimizer.step()
    print(epoch, loss.item())
torch.save(model.state_dict(), "model.pt")
