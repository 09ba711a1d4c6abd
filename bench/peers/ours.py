"""ecopipe on the machines of a comparison: each profiled by itself, then what the planner chooses."""
import contextlib
import json
import os
import pathlib
import statistics
import subprocess

import shapes

ENVIRONMENT = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str((1 << 31) - 1)}


def output(command, **options):
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=ENVIRONMENT, check=False,
                         timeout=900, **options)
    if run.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}: {run.stderr.strip()}")
    return run.stdout


def data(model):
    return f"synthetic:{'x'.join(map(str, shapes.SHAPES[model]))}:10:640"


class Ecopipe:
    """What is installed in `programs` on the machines of a room."""

    def __init__(self, programs, room, directory, model, batch):
        self.programs, self.room = pathlib.Path(programs), room
        self.directory, self.model, self.batch = pathlib.Path(directory), model, batch
        self.cluster = self.directory / "cluster.yaml"

    def profile(self):
        """Of each machine, on it; then the cluster file."""
        lines = ["name: peers", f"portal: {self.room.machines[0].name}", f"portal_address: {self.room.address(self.room.machines[0])}",
                 "devices:"]
        for machine in self.room.machines:
            out = self.directory / f"{machine.name}.json"
            output(self.room.command(machine, [self.programs / "ecopipe-profile", "--model", self.model, "--data", data(self.model),
                                               "--micro-batch", "2,4,8,16,32", "--seconds", 2,
                                               "--device-name", machine.name, "--out", out]))
            lines.append(f"  - {{name: {machine.name}, memory_mib: 4096, profile: {out}}}")
        lines.append(f"default_link: {{mbps: {self.room.mbps or 10000}, latency_ms: 0.1}}")
        self.cluster.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def plan(self, *flags):
        """The file of the plan that the planner chooses."""
        out = self.directory / "plan.json"
        output([self.programs / "ecopipe-plan", "--cluster", self.cluster, "--batch", self.batch, "--out", out, *flags])
        return out

    def step_ms(self, plan, steps, port):
        """The median step of a run; the first two are not counted."""
        out = self.directory / f"run{port}"
        first = self.room.machines[0]
        address = f"tcp://{self.room.address(first)}:{port}"
        train = subprocess.Popen(
            self.room.command(first, [self.programs / "ecopipe-train", "--cluster", self.cluster, "--plan", plan, "--model", self.model,
                                      "--data", data(self.model), "--steps", steps + 2, "--no-evaluation", "--quiet",
                                      "--replicas", "off", "--out", out, "--bind", address, "--insecure"]),
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
        stages = [subprocess.Popen(
            self.room.command(machine, [self.programs / "ecopipe-stage", "--join", address, "--name", machine.name, "--insecure",
                                        "--log-level", "error"]), env=ENVIRONMENT) for machine in self.room.machines]
        try:
            _, errors = train.communicate(timeout=900)
        finally:
            train.kill()
            for stage in stages:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    stage.wait(timeout=10)
                stage.kill()
                stage.wait()
        if train.returncode != 0:
            raise SystemExit(f"ecopipe-train: {errors.strip()}")
        lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return statistics.median([json.loads(line)["step_ms"] for line in lines if '"step_ms"' in line][2:])


def described(plan):
    """A plan in a few words."""
    parts = []
    for stage in plan["stages"]:
        holders = [stage["device"], *(twin["device"] for twin in stage.get("twins", []))]
        parts.append(f"{'+'.join(holders)}: {stage['first_layer']}-{stage['last_layer']}")
    return f"{plan['schedule']}, M = {plan['micro_batches']}, B = {plan.get('sum_blocks', 1)}, {'; '.join(parts)}"
