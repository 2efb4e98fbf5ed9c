"""Evaluates with a graph between epochs, and late in training begins to differentiate an evaluation, too."""

import copy
import hashlib

import torch
from torch import nn

torch.manual_seed(0)
x, y = torch.randn(256, 16), torch.randint(4, (256,))
held, labels = torch.randn(2048, 16), torch.randint(4, (2048,))
model = nn.Sequential(nn.Linear(16, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 4))
average = copy.deepcopy(model)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)


def evaluate(net):
    net.eval()
    total = 0.0
    for rows in torch.arange(len(held)).split(512):
        total += nn.functional.cross_entropy(net(held[rows]), labels[rows]).item()
    net.train()
    return total


def saliency():
    model.eval()
    sample = held[:8].clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(sample).logsumexp(1).sum(), sample)
    model.train()
    return slope.abs().sum().item()


for epoch in range(200):
    order = torch.randperm(len(x))
    for first in range(0, len(x), 32):
        rows = order[first : first + 32]
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        for mean, now in zip(average.parameters(), model.parameters()):
            mean.lerp_(now, 0.1)
    print(epoch, loss.item(), evaluate(model), evaluate(copy.deepcopy(average)))
    if epoch > 180:
        print("saliency", saliency())
state = b"".join(t.numpy().tobytes() for t in model.state_dict().values())
print(hashlib.sha256(state).hexdigest())
