"""A seeded training that writes in every usual way, at every step or every few steps."""

import csv
import fcntl
import json
import logging
import os
import pathlib
import shutil
import sqlite3
import tempfile
import time

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
data = TensorDataset(torch.randn(64, 8), torch.randn(64, 1))
loader = DataLoader(data, batch_size=8, shuffle=True)
model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Dropout(0.1), torch.nn.Linear(8, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

logging.basicConfig(level=logging.INFO, handlers=[logging.FileHandler("log.txt")], format="%(message)s")
appended = open("losses.csv", "a", newline="")  # noqa: SIM115
writer = csv.writer(appended)
text = open("text.log", "w")  # noqa: SIM115
both = open("both.bin", "w+b")  # noqa: SIM115
database = sqlite3.connect("runs.db")
database.execute("create table losses (step integer, loss real)")
database.commit()
np.save("array.npy", np.zeros(64))
mapped = np.memmap("mapped.bin", dtype="float32", mode="w+", shape=(64,))
stored = np.load("array.npy", mmap_mode="r+")
descriptor = os.open("raw.bin", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
link = os.open("lock", os.O_RDWR | os.O_CREAT)

step = 0
for epoch in range(24):
    os.makedirs(f"epochs/{epoch:02}", exist_ok=False)
    assert os.listdir(f"epochs/{epoch:02}") == []
    for x, y in loader:
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        step += 1
        value = loss.item()
        print(f"step {step} loss {value:.6f}")
        logging.info("step %d loss %.6f", step, value)
        writer.writerow([step, value])
        text.write(f"{step} {value}\n")
        both.write(np.float32(value).tobytes())
        mapped[step % 64] = value
        stored[step % 64] += value
        os.write(descriptor, b"%d\n" % step)
        fcntl.flock(link, fcntl.LOCK_EX)
        database.execute("insert into losses values (?, ?)", (step, value))
        fcntl.flock(link, fcntl.LOCK_UN)
        time.sleep(0.002)
    database.commit()
    torch.save(model.state_dict(), "last.tmp")
    os.replace("last.tmp", "last.pt")
    torch.save(optimizer.state_dict(), f"epochs/{epoch:02}/optimizer.pt")
    with open("state.json", "w") as file:
        json.dump({"epoch": epoch, "loss": value}, file)
    pathlib.Path("note.txt").write_text(f"epoch {epoch}\n")
    shutil.copy("last.pt", "copy.pt")
    os.chmod("copy.pt", 0o640)
    with tempfile.TemporaryDirectory(dir=".") as folder, open(os.path.join(folder, "x"), "w") as file:
        file.write("scratch")
    if epoch % 3 == 2:
        os.rename(f"epochs/{epoch:02}/optimizer.pt", f"epochs/{epoch:02}/kept.pt")
        shutil.rmtree(f"epochs/{epoch - 1:02}")
    both.seek(0)
    both.truncate()
    assert pathlib.Path("state.json").exists()
mapped.flush()
appended.close()
torch.save(model, "model.pt")
