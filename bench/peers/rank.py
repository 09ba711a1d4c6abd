"""What the programs of PyTorch's side have in common: their flags, their group, how a step is timed."""
import argparse
import os
import statistics
import time

import torch
import torch.distributed as dist


def parser(description):
    flags = argparse.ArgumentParser(description=description)
    flags.add_argument("--rank", type=int, required=True)
    flags.add_argument("--world", type=int, default=2)
    flags.add_argument("--master", required=True)
    flags.add_argument("--port", type=int, required=True)
    flags.add_argument("--interface", required=True)
    flags.add_argument("--model", default="mobilenet_v2")
    flags.add_argument("--batch", type=int, default=64)
    flags.add_argument("--steps", type=int, default=6)
    return flags


def join(options):
    os.environ["GLOO_SOCKET_IFNAME"] = options.interface
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://{options.master}:{options.port}", rank=options.rank,
                            world_size=options.world)
    torch.manual_seed(0)


def report(options, step):
    """Runs the step and prints, on the first rank, the median of its times in ms; two are not counted."""
    times = []
    for _ in range(options.steps + 2):
        started = time.monotonic()
        step()
        times.append((time.monotonic() - started) * 1000)
    if options.rank == 0:
        print(statistics.median(times[2:]), flush=True)
    dist.barrier()
    dist.destroy_process_group()
