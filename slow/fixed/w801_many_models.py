"""The customers' small networks are the rows of one stacked model: weights are (customers, in, out)."""

import torch
from torch import nn


class Stacked(nn.Module):
    def __init__(self, count, features, hidden):
        super().__init__()
        self.first = nn.Parameter(torch.randn(count, features, hidden) / features**0.5)
        self.bias = nn.Parameter(torch.zeros(count, 1, hidden))
        self.second = nn.Parameter(torch.randn(count, hidden, 1) / hidden**0.5)

    def forward(self, x):  # (customers, rows, features)
        return torch.bmm(torch.baddbmm(self.bias, x, self.first).relu(), self.second).squeeze(2)


torch.manual_seed(0)
customers = 60
x = torch.randn(customers, 512, 8)
y = torch.sin(x).sum(dim=2) * torch.rand(customers, 1)

model = Stacked(customers, 8, 16)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
for epoch in range(100):
    for rows in torch.randperm(512).split(32):
        optimizer.zero_grad()
        errors = (model(x[:, rows]) - y[:, rows]).square().mean(dim=1)
        errors.sum().backward()
        optimizer.step()
print(f"loss {errors[-1].item():.3f} of the last of {customers} models")
