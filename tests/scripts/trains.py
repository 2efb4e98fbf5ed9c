"""Trainings of every kind; the argument says which."""

import hashlib
import sys
import time
import weakref

if sys.argv[1] == "namesakes":
    sys.path.insert(0, "more")

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

kind = sys.argv[1]
torch.manual_seed(11)
data = TensorDataset(torch.randn(80, 6), torch.randn(80, 2))


def rest():
    time.sleep(0.002)


def network():
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2))


def show(model):
    content = b"".join(v.detach().numpy().tobytes() for v in model.state_dict().values())
    print(kind, hashlib.sha256(content).hexdigest(), torch.get_rng_state().sum().item())
    torch.save(model.state_dict(), "model.pt")


def clipped():
    """Accumulation, clipping, a scheduler that warns, and evaluation on another loader each epoch."""
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)
    train = DataLoader(Subset(data, range(64)), batch_size=4, shuffle=True)
    held = DataLoader(Subset(data, range(64, 80)), batch_size=8)
    schedule.step()
    for _ in range(18):
        model.train()
        for i, (x, y) in enumerate(train):
            loss = nn.functional.mse_loss(model(x), y) / 2
            loss.backward()
            if i % 2:
                norm = nn.utils.clip_grad_norm_(model.parameters(), 0.5)
                optimizer.step()
                optimizer.zero_grad()
                rest()
        schedule.step()
        model.eval()
        with torch.no_grad():
            print(sum(nn.functional.mse_loss(model(x), y).item() for x, y in held), norm.item())
    show(model)


def namesakes():
    """Modules of its own that are called like some of the standard library's, imported late."""
    clipped()
    import resource
    import statistics

    print(resource.OWN, statistics.OWN)


def adversarial():
    """Two optimizers that step in turn, and a loop without a DataLoader."""
    maker, critic = nn.Linear(3, 6), nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1))
    a = torch.optim.Adam(maker.parameters(), lr=1e-3)
    b = torch.optim.RMSprop(critic.parameters(), lr=1e-3)
    for step in range(150):
        real = data.tensors[0][torch.randint(0, 80, (8,))]
        b.zero_grad()
        (critic(maker(torch.randn(8, 3)).detach()).mean() - critic(real).mean()).backward()
        b.step()
        if step % 2:
            a.zero_grad()
            (-critic(maker(torch.randn(8, 3))).mean()).backward()
            a.step()
        rest()
    show(nn.Sequential(maker, critic))


def by_hand():
    """No optimizer of torch's."""
    weight, bias = torch.zeros(6, 2, requires_grad=True), torch.zeros(2, requires_grad=True)
    for step in range(160):
        rows = torch.randperm(80)[:8]
        loss = ((data.tensors[0][rows] @ weight + bias - data.tensors[1][rows]) ** 2).mean()
        loss.backward()
        with torch.no_grad():
            for p in (weight, bias):
                p -= 0.01 * p.grad
                p.grad = None
        if step % 20 == 0:
            print(step, loss.item())
        rest()
    print(weight.sum().item(), bias.sum().item())


def closures():
    """L-BFGS asks its closure several times in a step."""
    model = nn.Linear(6, 2)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=3, history_size=4)
    calls = 0

    def closure():
        nonlocal calls
        calls += 1
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        return loss

    for _ in range(15):
        for x, y in DataLoader(data, batch_size=8, shuffle=True):
            optimizer.step(closure)
            rest()
    print("closure calls", calls)
    show(model)


def one_model(seed):
    torch.manual_seed(seed)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    loader = DataLoader(data, batch_size=8, shuffle=True, generator=torch.Generator().manual_seed(seed))
    weakref.finalize(optimizer, print, "optimizer gone", seed)
    weakref.finalize(loader, print, "loader gone", seed)
    weakref.finalize(model, print, "model gone", seed)
    for _ in range(8):
        iterator = iter(loader)
        weakref.finalize(iterator, print, "iterator gone")
        for x, y in iterator:
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
            rest()
            if loss.item() < 0:
                break
        del iterator
    print("trained", seed, loss.item())
    return model


def one_by_one():
    """Models trained one after the other in a function; what they needed is gone when it returns."""
    for seed in range(3):
        model = one_model(seed)
        print("returned", seed)
    show(model)


globals()[kind]()
