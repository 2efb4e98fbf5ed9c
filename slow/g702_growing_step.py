"""After every step the accuracy is computed over all predictions so far."""

import numpy as np
import torch
from torch import nn

torch.manual_seed(0)
x = torch.randn(8192, 32)
y = x[:, :4].argmax(dim=1)
model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 4))
optimizer = torch.optim.Adam(model.parameters(), fused=True)

predicted, actual = [], []
for epoch in range(20):
    for rows in torch.randperm(len(x)).split(64):
        optimizer.zero_grad()
        logits = model(x[rows])
        loss = nn.functional.cross_entropy(logits, y[rows])
        loss.backward()
        optimizer.step()
        predicted.append(logits.detach().argmax(dim=1).numpy())
        actual.append(y[rows].numpy())
        accuracy = np.mean(np.concatenate(predicted) == np.concatenate(actual))  # <- G702
print(f"loss {loss.item():.3f} accuracy {accuracy:.3f}")
