"""One of the processes that train a model by torch.distributed.pipelining over gloo. Rank 0 prints the median step in ms.

    pipelining.py --rank R --world 2 --master ADDRESS --port PORT --interface NAME --schedule 1f1b --cuts 12
                  --micro-batches 8 --model mobilenet_v2 --batch 64 --steps 6

--cuts: the last layer of each stage but the last. The looped schedules take twice as many stages as processes.
"""
import torch
from torch import nn, optim
from torch.distributed import pipelining

import models
import rank

SCHEDULES = {"gpipe": pipelining.ScheduleGPipe, "1f1b": pipelining.Schedule1F1B,
             "interleaved": pipelining.ScheduleInterleaved1F1B,
             "interleaved-zb": pipelining.ScheduleInterleavedZeroBubble, "zbv": pipelining.ScheduleZBVZeroBubble}
LOOPED = ("interleaved", "interleaved-zb", "zbv")


def stages_of(options, count):
    """Which stages this process has: dealt in turn, or there and back again (a V)."""
    if options.schedule == "zbv":
        return [options.rank, count - 1 - options.rank]
    return range(options.rank, count, options.world)


def main():
    flags = rank.parser(__doc__)
    flags.add_argument("--schedule", choices=SCHEDULES, required=True)
    flags.add_argument("--cuts", required=True)
    flags.add_argument("--micro-batches", type=int, default=8)
    options = flags.parse_args()
    rank.join(options)
    layers = models.whole(options.model)
    bounds = [0, *(int(cut) + 1 for cut in options.cuts.split(",")), len(layers)]
    count = len(bounds) - 1
    mine = [pipelining.PipelineStage(layers[bounds[index]:bounds[index + 1]], index, count, torch.device("cpu"))
            for index in stages_of(options, count)]
    held = mine if options.schedule in LOOPED else mine[0]
    schedule = SCHEDULES[options.schedule](held, options.micro_batches, loss_fn=nn.CrossEntropyLoss())
    optimizer = optim.SGD([p for stage in mine for p in stage.submod.parameters()], lr=0.01, momentum=0.9)
    inputs, labels = models.random_batch(options.model, options.batch)
    given = (inputs,) if mine[0].is_first else ()
    target = {"target": labels, "losses": []} if any(stage.is_last for stage in mine) else {}

    def step():
        optimizer.zero_grad()
        schedule.step(*given, **target)
        optimizer.step()

    rank.report(options, step)


if __name__ == "__main__":
    main()
