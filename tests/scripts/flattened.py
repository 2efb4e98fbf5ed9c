"""Looks at weights, gradients, outputs and a checkpoint as people do who know how these lie in memory."""

from __future__ import annotations

import io

import torch
from torch import nn


def main() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1))
    optimizer = torch.optim.Adam(model.parameters())
    x = torch.rand(4, 3, 16, 16)
    for step in range(40):
        optimizer.zero_grad(set_to_none=False)
        if step % 10 == 1:
            print(float(sum(p.grad.abs().sum() for p in model.parameters())))
        out = model(x)
        out.square().mean().backward()
        optimizer.step()
        if step % 10 == 9:
            print(out.view(-1).shape, [p.view(-1).shape for p in model.parameters()])
            print([p.grad.view(-1).shape for p in model.parameters()])
            model.eval()
            print(model(x).view(-1).shape)
            model.train()
    file = io.BytesIO()
    torch.save((model.state_dict(), optimizer.state_dict()["state"][0]["exp_avg"]), file)
    file.seek(0)
    weights, moment = torch.load(file)
    print([w.stride() for w in weights.values()], moment.stride())


if __name__ == "__main__":
    main()
