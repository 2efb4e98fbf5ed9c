"""A training that ends in the way its argument says."""

import os
import sys
import time

import torch
from torch.utils.data import DataLoader, Dataset

how, at = sys.argv[1], int(sys.argv[2])
torch.manual_seed(1)
step = 0


class Rows(Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, i):
        if how == "item" and step >= at:
            raise LookupError(f"row {i}") from ValueError("the cause")
        return torch.ones(4) * i / 64


def collate(rows):
    if how == "collate" and step >= at:
        raise RuntimeError("cannot collate")
    return torch.stack(rows)


def hook(gradient):
    if how == "hook" and step >= at:
        raise ArithmeticError("in a backward hook")
    return gradient


def chained():
    try:
        {}["missing"]
    except KeyError as error:
        try:
            raise OSError("second") from error
        except OSError:
            raise ExceptionGroup("several", [TypeError("one"), ValueError("two")])  # noqa: B904


loader = DataLoader(Rows(), batch_size=8, shuffle=False, collate_fn=collate)
model = torch.nn.Linear(4, 1)
model.weight.register_hook(hook)
if how == "closure":
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=2)
else:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
print("begins")
with open("log.txt", "w") as log:
    for epoch in range(20):
        for x in loader:

            def closure():
                optimizer.zero_grad()
                loss = model(x).square().mean()  # noqa: B023
                loss.backward()
                if how == "closure" and step >= at:
                    raise FloatingPointError("in the closure")
                return loss

            if how == "closure":
                optimizer.step(closure)
            else:
                closure()
                optimizer.step()
            step += 1
            print("step", step, file=log, flush=True)
            time.sleep(0.002)
            if step == at:
                torch.save(model.state_dict(), "model.pt")
                if how == "_exit":
                    os._exit(9)
                if how == "exit":
                    sys.exit(7)
                if how == "words":
                    sys.exit("words for stderr")
                if how == "chained":
                    chained()
                if how == "interrupt":
                    raise KeyboardInterrupt
                if how == "abort":
                    os.abort()
print("done", step)
