"""A recommender whose tables have far more rows than a batch looks up."""

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
USERS, ITEMS, BATCH = 60_000, 20_000, 256


class Factors(nn.Module):
    def __init__(self):
        super().__init__()
        self.users = nn.Embedding(USERS, 32)
        self.items = nn.Embedding(ITEMS, 32)
        self.score = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, user, item):
        return self.score(torch.cat([self.users(user), self.items(item)], 1)).squeeze(1)


model = Factors()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
users, items, ratings = torch.randint(USERS, (50_000,)), torch.randint(ITEMS, (50_000,)), torch.rand(50_000)

for step in range(120):
    rows = torch.randint(50_000, (BATCH,))
    loss = nn.functional.mse_loss(model(users[rows], items[rows]), ratings[rows])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()  # <- O404
print(f"loss {loss.item():.3f}")
