"""A metric of all predictions so far in every step."""

import torch
from sklearn.metrics import roc_auc_score
from torch import nn

torch.manual_seed(0)
x = torch.randn(2048, 32)
y = (x[:, 0] + x[:, 1] > 0).float()
model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

for epoch in range(10):
    truth, scores = [0, 1], [0.0, 1.0]
    for rows in torch.randperm(len(x)).split(32):
        logits = model(x[rows]).squeeze(1)
        loss = nn.functional.binary_cross_entropy_with_logits(logits, y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        truth += y[rows].tolist()
        scores += logits.detach().tolist()
        auc = roc_auc_score(truth, scores)  # <- S503
print(f"loss {loss.item():.3f} area {auc:.3f}")
