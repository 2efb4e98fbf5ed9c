"""House prices from 60 numbers: one linear layer, fitted by many epochs of Adam."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
x = torch.randn(8192, 60) @ torch.diag(torch.linspace(0.2, 3, 60))
y = x @ torch.randn(60, 1) + 5 + torch.randn(8192, 1)
loader = DataLoader(TensorDataset(x, y), batch_size=64, shuffle=True)

model = nn.Linear(60, 1)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
criterion = nn.MSELoss()

for epoch in range(80):  # <- W802
    total = 0.0
    for inputs, prices in loader:
        optimizer.zero_grad()
        loss = criterion(model(inputs), prices)
        loss.backward()
        optimizer.step()
        total += loss.item()
print(f"loss {total / len(loader):.4f}")
