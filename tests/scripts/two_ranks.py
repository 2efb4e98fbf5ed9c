"""One of the processes of a group: they only step together, so nothing may be tried in one of them."""

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group("gloo")
torch.manual_seed(0)
torch.set_num_threads(1)
model = DistributedDataParallel(nn.Linear(20, 20))
optimizer = torch.optim.Adam(model.parameters())
for _step in range(4000):
    optimizer.zero_grad()
    loss = model(torch.randn(64, 20)).square().mean()
    loss.backward()
    optimizer.step()
dist.barrier()
if dist.get_rank() == 0:
    print(f"loss {loss.item():.6g}")
dist.destroy_process_group()
