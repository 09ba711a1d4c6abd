"""Machines of one room on this one: a network namespace each, a share of one core (cgroup quota), a link of a given
rate in each direction to a switch. Needs root (ip netns, tc, the cpu controller of cgroups)."""
import contextlib
import dataclasses
import pathlib
import subprocess
import time

CPU_PERIOD_US = 10000  # short, so that a share of a core is a slow core rather than a core now and then


@dataclasses.dataclass(frozen=True)
class Machine:
    name: str
    core: int
    share: float = 1.0  # of the core

    @property
    def interface(self):
        return f"eco-{self.name}"


def call(*words):
    run = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, words))}: {run.stderr.strip()}")


def cpu_group(name):
    """The directory of a cgroup for this machine, of version 1 or 2, and what sets its quota."""
    for mount in pathlib.Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        _, at, kind, options, *_ = mount.split()
        if kind == "cgroup" and "cpu" in options.split(","):
            return pathlib.Path(at) / f"ecopipe-{name}", 1
        if kind == "cgroup2" and "cpu" in (pathlib.Path(at) / "cgroup.controllers").read_text(encoding="utf-8").split():
            return pathlib.Path(at) / f"ecopipe-{name}", 2
    raise SystemExit("machines.py: no cgroup here controls the CPU")


def remove_group(group):
    """As soon as the last of its processes is gone."""
    for _ in range(50):
        with contextlib.suppress(OSError):
            return group.rmdir()
        time.sleep(0.1)
    print(f"machines.py: {group} could not be removed", flush=True)


class Room:
    """A context: the machines exist inside it. mbps None joins them without a limit."""

    def __init__(self, machines, mbps=None):
        self.machines = list(machines)
        self.mbps = mbps
        self._stack = contextlib.ExitStack()

    def address(self, machine):
        return f"10.87.0.{self.machines.index(machine) + 1}"

    def command(self, machine, words):
        """What runs the command on the machine."""
        group, _ = cpu_group(machine.name)
        script = f"echo $$ > {group}/cgroup.procs && exec \"$@\""
        return ["sh", "-c", script, "sh", "taskset", "-c", str(machine.core), "ip", "netns", "exec",
                f"ecopipe-{machine.name}", *map(str, words)]

    def __enter__(self):
        # Of a comparison that was killed.
        quiet = {"check": False, "stderr": subprocess.DEVNULL}
        for machine in self.machines:
            subprocess.run(["ip", "link", "del", f"eco-port-{machine.name}"], **quiet)
            subprocess.run(["ip", "netns", "del", f"ecopipe-{machine.name}"], **quiet)
        subprocess.run(["ip", "link", "del", "eco-switch"], **quiet)
        with contextlib.ExitStack() as stack:
            call("ip", "link", "add", "eco-switch", "type", "bridge")
            stack.callback(subprocess.run, ["ip", "link", "del", "eco-switch"], check=False)
            call("ip", "link", "set", "eco-switch", "up")
            for machine in self.machines:
                self._add(machine, stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_):
        self._stack.close()

    def _add(self, machine, stack):
        space, inside, port = f"ecopipe-{machine.name}", machine.interface, f"eco-port-{machine.name}"
        call("ip", "netns", "add", space)
        stack.callback(subprocess.run, ["ip", "netns", "del", space], check=False)
        call("ip", "link", "add", inside, "netns", space, "type", "veth", "peer", "name", port)
        # A namespace that is deleted takes its interfaces along when it likes.
        stack.callback(subprocess.run, ["ip", "link", "del", port], check=False)
        call("ip", "link", "set", port, "master", "eco-switch", "up")
        call("ip", "-n", space, "addr", "add", f"{self.address(machine)}/24", "dev", inside)
        call("ip", "-n", space, "link", "set", inside, "up")
        call("ip", "-n", space, "link", "set", "lo", "up")
        if self.mbps:
            # What passes at once after an idle time: 4 ms of the rate, as much as the kernel's clock needs.
            burst = max(10000, int(self.mbps * 1e6 / 8 * 0.004))
            limit = ["root", "tbf", "rate", f"{self.mbps}mbit", "burst", f"{burst}b", "latency", "100ms"]
            call("ip", "netns", "exec", space, "tc", "qdisc", "add", "dev", inside, *limit)
            call("tc", "qdisc", "add", "dev", port, *limit)
        group, version = cpu_group(machine.name)
        group.mkdir(exist_ok=True)
        stack.callback(remove_group, group)
        quota = int(machine.share * CPU_PERIOD_US) if machine.share < 1 else None
        if version == 1:
            (group / "cpu.cfs_period_us").write_text(str(CPU_PERIOD_US), encoding="utf-8")
            (group / "cpu.cfs_quota_us").write_text(str(quota or -1), encoding="utf-8")
        else:
            (group / "cpu.max").write_text(f"{quota or 'max'} {CPU_PERIOD_US}", encoding="utf-8")
