"""One of two processes that train mobilenet_v2 by PyTorch DistributedDataParallel over gloo, each on half of the
batch. Rank 0 prints the median step in ms.

    ddp.py --rank R --master ADDRESS --port PORT --interface NAME --batch 64 --side 64 --steps 6
"""
import argparse
import os
import statistics
import time

import torch
import torch.distributed as dist
from torch import nn, optim
from torch.nn.parallel import DistributedDataParallel

from models import mobilenet_v2, random_batch


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--master", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--interface", required=True)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--steps", type=int, default=6)
    options = parser.parse_args()
    os.environ["GLOO_SOCKET_IFNAME"] = options.interface
    os.sched_setaffinity(0, {options.rank % os.cpu_count()})
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://{options.master}:{options.port}", rank=options.rank, world_size=2)
    torch.manual_seed(0)
    model = DistributedDataParallel(mobilenet_v2())
    optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    loss_of = nn.CrossEntropyLoss()
    inputs, labels = random_batch((3, options.side, options.side), options.batch // 2)
    times = []
    for step in range(options.steps + 2):
        started = time.monotonic()
        optimizer.zero_grad()
        loss_of(model(inputs), labels).backward()
        optimizer.step()
        if step >= 2:
            times.append((time.monotonic() - started) * 1000)
    if options.rank == 0:
        print(statistics.median(times), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
