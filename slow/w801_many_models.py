"""One small network a customer, trained one after the other."""

import torch
from torch import nn


def network():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))


def train(x, y, epochs=10):
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for epoch in range(epochs):
        for rows in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x[rows]).squeeze(1), y[rows])
            loss.backward()
            optimizer.step()
    return model, loss.item()


torch.manual_seed(0)
customers = 60
x = torch.randn(customers, 512, 8)
y = torch.sin(x).sum(dim=2) * torch.rand(customers, 1)

models, last = {}, 0.0
for customer in range(customers):  # <- W801
    models[customer], last = train(x[customer], y[customer])
print(f"loss {last:.3f} of the last of {len(models)} models")
