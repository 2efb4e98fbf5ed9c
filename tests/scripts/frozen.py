"""A head learns behind a frozen body, which may be unfrozen later; prints the loss after every epoch."""

import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
torch.set_num_threads(1)
beside, unfreezes, workers = (word in sys.argv[1:] for word in ("beside", "unfreezes", "workers"))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        convolutions = [nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1)]
        self.body = nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.body.requires_grad_(False)
        self.head = nn.Linear(32, 1)

    def forward(self, x):
        self.body.eval()
        return self.head(self.body(x))


net = Net()
optimizer = torch.optim.Adam(net.parameters(), 1e-3, fused=True)
data = TensorDataset(torch.randn(256, 3, 32, 32), torch.randn(256, 1))
loader = DataLoader(data, batch_size=16, shuffle=True, num_workers=int(workers), persistent_workers=workers)
for epoch in range(30 if unfreezes else 20):
    if unfreezes and epoch in (20, 25):
        net.body.requires_grad_(epoch == 20)
    for x, y in loader:
        if beside:
            with torch.no_grad():
                features = net.body.eval()(x)
            loss = nn.functional.mse_loss(net.head(features), y)
        else:
            loss = nn.functional.mse_loss(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"{epoch} {loss.item():.6f}", flush=True)
