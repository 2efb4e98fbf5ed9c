"""Loaders with worker processes: ``fork`` or ``spawn``, new ones each epoch or ``persistent``, broken off early."""

import os
import random
import sys
import time

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

method, keep = sys.argv[1], sys.argv[2] == "persistent"


class Rows(Dataset):
    """Draws random numbers of three kinds in its worker."""

    def __len__(self):
        return 48

    def __getitem__(self, i):
        return torch.tensor([i / 48, random.random(), np.random.rand(), torch.rand(1).item()], dtype=torch.float32)


def main():
    torch.manual_seed(2)
    given = torch.Generator().manual_seed(4)
    loader = DataLoader(
        Rows(),
        batch_size=4,
        shuffle=True,
        num_workers=2,
        multiprocessing_context=method,
        persistent_workers=keep,
        generator=given,
    )
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for epoch in range(int(sys.argv[3])):
        for i, x in enumerate(loader):
            optimizer.zero_grad()
            loss = (model(x) + torch.rand(4, 1, generator=given)).square().mean()
            loss.backward()
            optimizer.step()
            time.sleep(0.004)
            if epoch % 3 == 2 and i == 7:
                break
        print(epoch, i, loss.item())
    print(given.get_state().sum().item(), [p.tolist() for p in model.parameters()])
    torch.save(model.state_dict(), "model.pt")
    print("open files", sorted(len(os.listdir("/proc/self/fd")) > 50 for _ in range(1)))


if __name__ == "__main__":
    main()
