"""Trains long enough for a replayed plan to be watched no more: three optimizers, a dataset of its own, an evaluation,
a pass that is left early, one under torch's profiler. Prints everything that hasten could have changed.
"""

import hashlib

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils.data import DataLoader, Dataset, TensorDataset


class Own(Dataset):
    def __init__(self):
        self.x = torch.randn(600, 4)
        self.y = torch.randint(2, (600,))
        self.asked = 0

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], self.y[i]


def digest(*tensors):
    return hashlib.sha256(b"".join(t.detach().contiguous().numpy().tobytes() for t in tensors)).hexdigest()[:16]


def names(profile):
    return sum(e.count for e in profile.key_averages() if "enumerate(DataLoader)" in e.key)


hooked = [0, 0]  # calls of hooks of its own, which come after hasten's


def hook(number):
    def count(optimizer, args, kwargs):
        hooked[number] += 1

    return count


register_optimizer_step_pre_hook(hook(0))
register_optimizer_step_post_hook(hook(1))
torch.manual_seed(0)
torch.set_num_threads(1)
data = Own()
loader = DataLoader(data, 4, shuffle=True)
held_out = DataLoader(TensorDataset(torch.randn(50, 4), torch.randint(2, (50,))), 8)
nets = [nn.Linear(4, 2) for _ in range(3)]
optimizers = [torch.optim.SGD(net.parameters(), lr=0.1) for net in nets]


def train(batches):
    seen = 0
    for x, y in batches:
        for net, optimizer in zip(nets, optimizers):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()
        seen += len(x)
    return seen


for epoch in range(6):
    if epoch == 2:
        data.x = data.x * 2
    if epoch == 3:
        optimizers[0] = torch.optim.SGD(nets[0].parameters(), lr=0.05)
    seen = train(loader)
    for net in nets:
        net.eval()
    with torch.no_grad():
        loss = sum(float(nn.functional.cross_entropy(nets[0](x), y)) for x, y in held_out)
    for net in nets:
        net.train()
    print(epoch, seen, loss, digest(*(p for net in nets for p in net.parameters())))

iterator = iter(loader)
print(len(list(zip(range(5), iterator))), iterator._num_yielded, len(iterator))
for x, y in loader:
    break
with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
    train(loader)
print("batches in the profile", names(profile))
print(digest(*(p for net in nets for p in net.parameters()), torch.get_rng_state()))
print(hooked)
