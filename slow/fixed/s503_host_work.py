"""The metric once an epoch, of tensors that were collected."""

import torch
from sklearn.metrics import roc_auc_score
from torch import nn

torch.manual_seed(0)
x = torch.randn(2048, 32)
y = (x[:, 0] + x[:, 1] > 0).float()
model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

for epoch in range(20):
    truth, scores = [], []
    for rows in torch.randperm(len(x)).split(32):
        logits = model(x[rows]).squeeze(1)
        loss = nn.functional.binary_cross_entropy_with_logits(logits, y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        truth.append(y[rows])
        scores.append(logits.detach())
    auc = roc_auc_score(torch.cat(truth), torch.cat(scores))
print(f"loss {loss.item():.3f} area {auc:.3f}")
