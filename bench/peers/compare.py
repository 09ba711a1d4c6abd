#!/usr/bin/env python3
"""ecopipe against PyTorch on this machine, in turn (A B A B), one core a device and malloc thresholds raised for both.

    compare.py rpc|ddp|pipelining|unequal ... [--turns 3] [--rates 10,100,1000,0] [--models mobilenet_v2,plain_cnn]
               [--python PROGRAM] [--programs DIRECTORY]

ddp         two equal machines, DistributedDataParallel over gloo, at each rate (Mbit/s; 0: unlimited)
pipelining  two equal machines, the schedules of torch.distributed.pipelining, at the last rate
unequal     two and three machines with 100, 50 and 25 % of a core at each rate, six clusters by default: DDP
            with an even part of the batch each, pipelining with an even part of the work each
rpc         the RPC pipeline on loopback; of PyTorch before 2.9 only

ecopipe runs what its planner chooses for each machine's own profile. Two idle cores; root for all but rpc (ip netns, tc,
cgroups). --python: one whose torch and torchvision are meant (Debian's python3-torch for rpc and ddp, a virtual environment's);
--programs: ecopipe's, built with the same LibTorch (CMAKE_PREFIX_PATH=.../site-packages/torch scripts/build.sh).
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile

import ours
from machines import Machine, Room

HERE = pathlib.Path(__file__).resolve().parent
BATCH = 64
STEPS = 6
FIRST_PORT = 29500
SCHEDULES = {"gpipe": 1, "1f1b": 1, "interleaved": 2, "interleaved-zb": 2, "zbv": 2}  # stages a process
MICRO_BATCHES = (2, 4, 8, 16)
EQUAL = [Machine("a", 0), Machine("b", 1)]
UNEQUAL = [[Machine("a", 0), Machine("b", 1, 0.5)], [Machine("a", 0), Machine("b", 1, 0.5), Machine("c", 1, 0.25)]]


class Comparison:
    """Both sides on the machines of one room with one model."""

    def __init__(self, options, room, directory, model):
        self.options, self.room, self.model = options, room, model
        self.mine = ours.Ecopipe(options.programs, room, directory, model, BATCH)
        self.mine.profile()
        self._port = FIRST_PORT

    def port(self):
        self._port += 1
        return self._port

    def theirs_ms(self, program, *flags, steps=STEPS):
        """The median step of PyTorch's program on all machines, None where it fails."""
        machines, port = self.room.machines, self.port()
        ranks = [subprocess.Popen(
            self.room.command(machine, [self.options.python, HERE / program, "--rank", rank, "--world", len(machines), "--master",
                                        self.room.address(machines[0]), "--port", port, "--interface", machine.interface,
                                        "--model", self.model, "--batch", BATCH, "--steps", steps, *flags]),
            cwd=HERE, env=ours.ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for rank, machine in enumerate(machines)]
        try:
            said = [rank.communicate(timeout=900) for rank in ranks]
        except subprocess.TimeoutExpired:
            said = [("", "no end within 15 minutes")]
        finally:
            for rank in ranks:
                rank.kill()
                rank.wait()
        # Once the time is told, what happens when gloo is taken down is no matter.
        if not said[0][0].strip():
            why = [errors.strip().splitlines()[-1] for _, errors in said if errors.strip()]
            print(f"  {program} {' '.join(map(str, flags))}: {why[0] if why else 'no time told'}", flush=True)
            return None
        return float(said[0][0])

    def ddp(self):
        return self.theirs_ms("ddp.py")

    def pipelining(self, schedule, micro_batches, cuts, steps=STEPS):
        return self.theirs_ms("pipelining.py", "--schedule", schedule, "--micro-batches", micro_batches, "--cuts",
                              ",".join(map(str, cuts)), steps=steps)

    def best_pipelining(self, schedules=tuple(SCHEDULES), all_micro_batches=MICRO_BATCHES):
        """One short run each of what may be best; the arguments of the best."""
        best = None
        for schedule in schedules:
            cuts = even_cuts(self.mine, SCHEDULES[schedule] * len(self.room.machines))
            for micro_batches in all_micro_batches:
                took = self.pipelining(schedule, micro_batches, cuts, steps=2)
                if took is None:
                    continue
                print(f"  pipelining, {schedule}, {micro_batches} micro-batches, cut after {cuts}: {took:.1f} ms", flush=True)
                if best is None or took < best[0]:
                    best = took, (schedule, micro_batches, cuts)
        if best is None:
            raise SystemExit("compare.py: no schedule of torch.distributed.pipelining ran (it needs PyTorch 2.6 or later)")
        return best[1]

    def in_turn(self, title, plan, theirs):
        """ecopipe with this plan beside each of the peers; prints the ratio to the quickest and returns it."""
        mine, times = [], {name: [] for name in theirs}
        for _ in range(self.options.turns):
            mine.append(self.mine.step_ms(plan, STEPS, self.port()))
            for name, step in theirs.items():
                took = step()
                if took is None:
                    raise SystemExit(f"compare.py: {name} failed")
                times[name].append(took)
        said = json.loads(plan.read_text(encoding="utf-8"))
        median = statistics.median(mine)
        quickest = min(map(statistics.median, times.values()))
        told = ", ".join(f"{name} {statistics.median(each):.1f} ({spread(each)})" for name, each in times.items())
        print(f"{self.model}, batch {BATCH}, {title}: ecopipe {median:.1f} ({spread(mine)}) ms, {said['predicted']['step_ms']:.1f} "
              f"predicted; {told} ms: {quickest / median:.2f} times as fast\n  {ours.described(said)}", flush=True)
        return quickest / median


def spread(times):
    return f"{min(times):.1f} to {max(times):.1f}"


def even_cuts(mine, parts):
    """The last layer of each part but the last: the cut whose heaviest part is lightest, by the first machine's profile."""
    profile = json.loads((mine.directory / f"{mine.room.machines[0].name}.json").read_text(encoding="utf-8"))
    work = [sum(layer["timing"][-1][part] for part in ("forward_ms", "backward_ms")) for layer in profile["layers"]]
    best = {0: (0.0, [])}  # by how many layers are dealt: the heaviest part, the cuts
    for part in range(parts):
        following = {}
        for end in range(part + 1, len(work) + 1):
            options = [(max(heaviest, sum(work[begin:end])), [*cuts, end - 1])
                       for begin, (heaviest, cuts) in best.items() if begin < end]
            following[end] = min(options)
        best = following
    return best[len(work)][1][:-1]


def rate(mbps):
    return f"{mbps} Mbit/s" if mbps else "no limit"


def compare_ddp(options):
    for model in options.models:
        for mbps in options.rates:
            with tempfile.TemporaryDirectory() as directory, Room(EQUAL, mbps) as room:
                comparison = Comparison(options, room, directory, model)
                plan = comparison.mine.plan("--sum-blocks", "auto")
                comparison.in_turn(f"two equal machines, {rate(mbps)}", plan, {"DDP": comparison.ddp})


def compare_pipelining(options):
    for model in options.models:
        with tempfile.TemporaryDirectory() as directory, Room(EQUAL, options.rates[-1]) as room:
            comparison = Comparison(options, room, directory, model)
            best = comparison.best_pipelining()
            plan = comparison.mine.plan("--sum-blocks", "auto")
            comparison.in_turn(f"two equal machines, {rate(options.rates[-1])}", plan,
                               {f"pipelining ({best[0]}, {best[1]} micro-batches)": lambda: comparison.pipelining(*best)})


def compare_unequal(options):
    for model in options.models:
        ratios = []
        for machines in UNEQUAL:
            for mbps in filter(None, options.rates):
                with tempfile.TemporaryDirectory() as directory, Room(machines, mbps) as room:
                    comparison = Comparison(options, room, directory, model)
                    best = comparison.best_pipelining(all_micro_batches=(2, 4, 8))
                    plan = comparison.mine.plan("--sum-blocks", "auto")
                    shares = ", ".join(f"{100 * machine.share:.0f} %" for machine in machines)
                    ratios.append(comparison.in_turn(
                        f"{shares} of a core, {rate(mbps)}", plan,
                        {"DDP": comparison.ddp,
                         f"pipelining ({best[0]})": lambda c=comparison, b=best: c.pipelining(*b)}))
        if ratios:
            print(f"{model}, {len(ratios)} unequal clusters: {statistics.median(ratios):.2f} times as fast in the median, "
                  f"{min(ratios):.2f} at least", flush=True)


def compare_rpc(options):
    micro_batches = 8
    mine, single, theirs = [], [], []
    for _ in range(options.turns):
        result = json.loads(ours.output([options.programs / "ecopipe-bench", "pipeline", "--stages", 2, "--model", "plain_cnn",
                                         "--batch", BATCH, "--micro-batches", micro_batches, "--data", ours.data("plain_cnn"),
                                         "--turns", 1, "--steps", 10, "--json"]))
        cut = int(result["stages"][0]["layers"].split("-")[1])  # the planner's, for both
        mine.append(result["step_ms"])
        single.append(result["single_step_ms"])
        theirs.append(float(ours.output([options.python, HERE / "rpc_pipeline.py", "--cut", cut, "--micro-batches", micro_batches,
                                         "--batch", BATCH], cwd=HERE)))
    median, rpc = statistics.median(mine), statistics.median(theirs)
    print(f"plain_cnn 3x16x16, batch {BATCH}, {micro_batches} micro-batches, cut after layer {cut}, loopback:\n"
          f"  one process {statistics.median(single):.1f} ms, ecopipe {median:.1f} ms, PyTorch RPC pipeline {rpc:.1f} ms a step: "
          f"{rpc / median:.2f} times as fast")


WHAT = {"rpc": compare_rpc, "ddp": compare_ddp, "pipelining": compare_pipelining, "unequal": compare_unequal}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", choices=WHAT)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--rates", type=lambda text: [int(rate) for rate in text.split(",")], default=[10, 100, 1000, 0])
    parser.add_argument("--models", type=lambda text: text.split(","), default=["mobilenet_v2"])
    parser.add_argument("--python", default="/usr/bin/python3")
    parser.add_argument("--programs", type=pathlib.Path, default=HERE.parent.parent / "build/bin")
    options = parser.parse_args()
    for what in options.what:
        WHAT[what](options)


if __name__ == "__main__":
    main()
