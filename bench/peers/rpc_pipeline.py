"""plain_cnn on two workers with PyTorch's RPC pipeline ("Distributed Pipeline Parallelism Using RPC", PyTorch
tutorials): distributed autograd, distributed optimiser, micro-batches in flight. Prints the median step in ms.

    rpc_pipeline.py --cut 4 --micro-batches 8 --batch 64 --steps 10
"""
import argparse
import os
import socket
import statistics
import threading
import time

import torch
import torch.distributed.autograd as dist_autograd
import torch.multiprocessing as mp
from torch import nn, optim
from torch.distributed import rpc
from torch.distributed.optim import DistributedOptimizer

from models import plain_cnn, random_batch


class Shard(nn.Module):
    def __init__(self, first, last):
        super().__init__()
        self.layers = plain_cnn()[first:last]
        self.lock = threading.Lock()

    def forward(self, input_rref):
        value = input_rref.to_here()
        with self.lock:
            return self.layers(value)

    def parameter_rrefs(self):
        return [rpc.RRef(parameter) for parameter in self.parameters()]


def train(options):
    front = rpc.remote("worker1", Shard, args=(0, options.cut + 1))
    back = rpc.remote("worker2", Shard, args=(options.cut + 1, 11))
    parameters = front.rpc_sync().parameter_rrefs() + back.rpc_sync().parameter_rrefs()
    optimizer = DistributedOptimizer(optim.SGD, parameters, lr=0.01, momentum=0.9)
    loss_of = nn.CrossEntropyLoss()
    inputs, labels = random_batch("plain_cnn", options.batch)
    times = []
    for step in range(options.steps + 2):
        started = time.monotonic()
        with dist_autograd.context() as context:
            futures = []
            for part in inputs.chunk(options.micro_batches):
                middle = front.remote().forward(rpc.RRef(part))
                futures.append(back.rpc_async().forward(middle))
            loss = loss_of(torch.cat(torch.futures.wait_all(futures)), labels)
            dist_autograd.backward(context, [loss])
            optimizer.step(context)
        if step >= 2:
            times.append((time.monotonic() - started) * 1000)
    print(statistics.median(times), flush=True)


def run(rank, port, options):
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = "127.0.0.1", str(port)
    torch.set_num_threads(1)
    backend = rpc.TensorPipeRpcBackendOptions(num_worker_threads=16, rpc_timeout=120)
    if rank == 0:
        rpc.init_rpc("master", rank=0, world_size=3, rpc_backend_options=backend)
        train(options)
    else:
        os.sched_setaffinity(0, {(rank - 1) % os.cpu_count()})
        rpc.init_rpc(f"worker{rank}", rank=rank, world_size=3, rpc_backend_options=backend)
    rpc.shutdown()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cut", type=int, default=4, help="last layer of the first worker")
    parser.add_argument("--micro-batches", type=int, default=8)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(run, args=(port, options), nprocs=3, join=True)


if __name__ == "__main__":
    main()
