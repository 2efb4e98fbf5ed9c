"""A dataset with handles, locks and a database, and a script that replaces torch's own calls."""

import fcntl
import os
import sqlite3
import struct
import threading
import time

import torch
from torch.utils.data import DataLoader, Dataset

COUNT = 64


def prepare():
    with open("rows.bin", "wb") as file:
        for i in range(COUNT):
            file.write(struct.pack("<4f", i, i + 1, i * i, 1))
    with sqlite3.connect("labels.db") as database:
        database.execute("create table labels (row integer primary key, label real)")
        database.executemany("insert into labels values (?, ?)", [(i, i % 2) for i in range(COUNT)])
    for part in range(4):
        with open(f"part{part}.txt", "w") as file:
            file.write(f"{part}\n")


class Rows(Dataset):
    """Reads through one shared handle, so that its offset matters, under locks of three kinds."""

    def __init__(self):
        self.file = open("rows.bin", "rb", buffering=0)  # noqa: SIM115
        self.both = open("rows.bin", "r+b")  # noqa: SIM115
        self.number = os.open("rows.bin", os.O_RDONLY)
        self.lock = threading.Lock()
        self.again = threading.RLock()
        self.labels = sqlite3.connect("labels.db")
        self.guard = open("guard.lock", "w")  # noqa: SIM115

    def __len__(self):
        return COUNT

    def __getitem__(self, i):
        with self.lock, self.again, self.again:
            fcntl.flock(self.guard, fcntl.LOCK_EX)
            self.file.seek(16 * i)
            self.both.seek(16 * i)
            os.lseek(self.number, 16 * i, os.SEEK_SET)
            time.sleep(0)
            row = struct.unpack("<4f", self.file.read(16))
            assert row == struct.unpack("<4f", self.both.read(16)) == struct.unpack("<4f", os.read(self.number, 16))
            (label,) = self.labels.execute("select label from labels where row = ?", (i,)).fetchone()
            fcntl.flock(self.guard, fcntl.LOCK_UN)
        return torch.tensor(row) / COUNT, torch.tensor([label])


class Loader(DataLoader):
    def __iter__(self):
        print("an epoch begins")
        for batch in super().__iter__():
            yield [t.clone() for t in batch]


calls = {"save": 0, "backward": 0, "next": 0}
save, backward = torch.save, torch.Tensor.backward
inner = torch.utils.data.dataloader._BaseDataLoaderIter
advance = inner.__next__
call = torch.nn.Module.__call__


def counted_save(*args, **kwargs):
    calls["save"] += 1
    return save(*args, **kwargs)


def counted_backward(self, *args, **kwargs):
    calls["backward"] += 1
    return backward(self, *args, **kwargs)


def counted_next(self):
    calls["next"] += 1
    return advance(self)


def doubled(self, *args, **kwargs):
    return call(self, *args, **kwargs) * 1.5


torch.save, torch.Tensor.backward, inner.__next__ = counted_save, counted_backward, counted_next
torch.nn.Module.__call__ = doubled

prepare()
torch.manual_seed(3)
loader = Loader(Rows(), batch_size=8, shuffle=True)
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3)
fcntl.flock(loader.dataset.both, fcntl.LOCK_EX)
for epoch in range(18):
    print("first of another pass", next(iter(loader))[0].sum().item())
    for x, y in loader:
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(x), y)
        loss.backward()
        optimizer.step()
    if epoch % 4 == 1:
        part = epoch // 4
        if part < 4:
            os.rename(f"part{part}.txt", f"used{part}.txt")
            with open(f"used{part}.txt") as file:
                print("part", file.read().strip())
            os.remove(f"used{part}.txt")
    torch.save({"epoch": epoch, "model": model.state_dict()}, "last.pt")
print(calls, loss.item(), torch.nn.Module.__call__ is doubled, os.lseek(loader.dataset.number, 0, os.SEEK_CUR))
