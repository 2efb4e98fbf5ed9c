"""A script that compiles, scripts and traces by itself."""

import time

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, x):
        return self.layers(x)


torch.manual_seed(0)
net = Net()
compiled = torch.compile(net, backend="eager")
optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
for step in range(160):
    optimizer.zero_grad()
    loss = compiled(torch.randn(8, 6)).square().mean()
    loss.backward()
    optimizer.step()
    time.sleep(0.002)
print(loss.item())


@torch.jit.script
def scripted(x: torch.Tensor) -> float:
    print("scripted", x.size(0))
    return x.sum().item()


print(scripted(torch.ones(3)))
other = nn.Sequential(nn.Linear(6, 6), Net())
print([(n.op, str(n.target)) for n in torch.fx.symbolic_trace(other).graph.nodes])
print(torch.jit.trace(net, torch.ones(2, 6))(torch.ones(2, 6)).sum().item())
linear = nn.Linear(6, 1)
again = torch.optim.SGD(linear.parameters(), lr=0.1)
for _ in range(30):
    linear(torch.ones(2, 6)).sum().backward()
    again.step()
print([(n.op, str(n.target)) for n in torch.fx.symbolic_trace(nn.Sequential(linear)).graph.nodes])
torch.save(net.state_dict(), "model.pt")
