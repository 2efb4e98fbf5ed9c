"""The C library is told to keep freed memory, so every step uses the pages of the one before."""

import ctypes

import torch
from torch import nn

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
libc = ctypes.CDLL("libc.so.6")
libc.mallopt(M_MMAP_MAX, 0)
libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)

torch.manual_seed(0)
x = torch.randn(16_384, 16)
y = x[:, :1].sign()
model = nn.Sequential(nn.Linear(16, 768), nn.ReLU(), nn.Linear(768, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

for step in range(80):
    optimizer.zero_grad()
    loss = nn.functional.mse_loss(model(x), y)
    loss.backward()
    optimizer.step()
print(f"loss {loss.item():.4f}")
