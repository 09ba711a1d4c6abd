"""One of the processes that train a model by PyTorch DistributedDataParallel over gloo, each on an even part of the
batch. Rank 0 prints the median step in ms.

    ddp.py --rank R --world 2 --master ADDRESS --port PORT --interface NAME --model mobilenet_v2 --batch 64 --steps 6
"""
from torch import nn, optim
from torch.nn.parallel import DistributedDataParallel

import models
import rank


def main():
    options = rank.parser(__doc__).parse_args()
    rank.join(options)
    model = DistributedDataParallel(models.whole(options.model))
    optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    loss_of = nn.CrossEntropyLoss()
    mine = len(range(options.rank, options.batch, options.world))
    inputs, labels = models.random_batch(options.model, mine)

    def step():
        optimizer.zero_grad()
        loss_of(model(inputs), labels).backward()
        optimizer.step()

    rank.report(options, step)


if __name__ == "__main__":
    main()
