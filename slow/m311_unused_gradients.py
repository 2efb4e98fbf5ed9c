"""A critic learns to tell what a generator makes, and backward goes through the generator each time."""

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
real = torch.rand(1000, 196)
generator = nn.Sequential(nn.Linear(32, 256), nn.ReLU(), nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 196))
critic = nn.Sequential(nn.Linear(196, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
adam_g = torch.optim.Adam(generator.parameters(), lr=1e-4)
adam_c = torch.optim.Adam(critic.parameters(), lr=1e-4)
loss = nn.BCEWithLogitsLoss()
ones, zeros = torch.ones(100, 1), torch.zeros(100, 1)

for epoch in range(80):
    for rows in torch.randperm(1000).split(100):
        fake = generator(torch.randn(100, 32))
        loss_c = loss(critic(real[rows]), ones) + loss(critic(fake), zeros)
        adam_c.zero_grad()
        loss_c.backward()  # <- M311
        adam_c.step()
        loss_g = loss(critic(generator(torch.randn(100, 32))), ones)
        adam_g.zero_grad()
        loss_g.backward()
        adam_g.step()
print(f"loss {loss_c.item():.3f} of the critic, {loss_g.item():.3f} of the generator")
