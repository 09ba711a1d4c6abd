#!/usr/bin/env bash
# Compares runs of ecopipe-train by what their directories say: compare_runs.sh DIR DIR...
# Prints the flags that differ, then the results. A run that still goes on, or died, shows what metrics.jsonl has.
# Exit code 2: usage; 3: a directory holds no run, or a file of it is damaged.
set -euo pipefail
command -v python3 >/dev/null || {
    echo "compare_runs.sh: needs python3 (apt install python3)" >&2
    exit 1
}
exec python3 - "$@" <<'PYTHON'
import json
import os
import sys

# Where a run lives and how it is shown change no result.
NOT_COMPARED = {"out", "quiet", "log-level", "web"}


def refuse(code, message):
    print(f"compare_runs.sh: {message}", file=sys.stderr)
    sys.exit(code)


def read(path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        refuse(3, f"{path}: {error}")


def lines_of(path):
    """Whole lines; the last one of a run that died may be torn."""
    text = read(path)
    if text is None:
        return
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        if not line.endswith("\n"):
            return
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict):
            refuse(3, f"{path}:{number}: expected one JSON object a line")
        yield entry


def number(value, digits=4):
    if value is None:
        return "-"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def look(directory):
    try:
        return results_of(directory)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        refuse(3, f"{directory}: run.json or metrics.jsonl is damaged: {type(error).__name__}: {error}")


def results_of(directory):
    if not os.path.isdir(directory):
        refuse(3, f"{directory}: expected the directory of a run, found none")
    run_text = read(os.path.join(directory, "run.json"))
    if run_text is None and read(os.path.join(directory, "metrics.jsonl")) is None:
        refuse(3, f"{directory}: expected run.json or metrics.jsonl, found neither")
    try:
        run = json.loads(run_text) if run_text is not None else {}
    except ValueError:
        refuse(3, f"{directory}/run.json: expected JSON")
    if not isinstance(run, dict):
        refuse(3, f"{directory}/run.json: expected an object")
    flags = {name: value for name, value in run.get("flags", {}).items() if name not in NOT_COMPARED}
    flags["(model)"] = run.get("model", "-")
    flags["(version)"] = run.get("version", "-")
    steps, step_ms, loss, events, moved, best, tested = 0, [], None, 0, 0, {}, {}
    for line in lines_of(os.path.join(directory, "metrics.jsonl")):
        if "epoch" in line and "split" in line:
            # The test's is looked at once, at the end: its best would be a choice made with it.
            if line["split"] == "test":
                tested = {f"test_{key}": line[key] for key in ("loss", "accuracy") if key in line}
                continue
            for key, better in (("accuracy", max), ("loss", min)):
                if key in line:
                    name = f"best {line['split']} {key}"
                    best[name] = better(best.get(name, line[key]), line[key])
        elif "step" in line:
            steps, loss = line["step"], line["loss"]
            step_ms.append(line["step_ms"])
            events += len(line.get("event", []))
            moved += sum(event.get("bytes_moved", 0) for event in line.get("event", []))
    results = run.get("results", {})
    rows = {"finished": "no" if not results else "interrupted" if results.get("interrupted") else "yes",
            "steps": str(results.get("steps", steps)),
            "last loss": number(results.get("last_loss", loss))}
    for name, value in best.items():
        rows[name] = number(value)
    for name, key in (("test loss", "test_loss"), ("test accuracy", "test_accuracy")):
        if key in results or key in tested:
            rows[name] = number(results.get(key, tested.get(key)))
    rows["median step ms"] = number(sorted(step_ms)[len(step_ms) // 2], 2) if step_ms else "-"
    rows["samples/s"] = number(results.get("samples_per_s"), 0)
    rows["failures, moves"] = str(events)
    rows["MiB moved by them"] = number(moved / 2**20, 1)
    classes = {device.get("numeric_class") for device in run.get("devices", {}).values()}
    rows["numeric class"] = ", ".join(sorted(filter(None, classes))) or "-"
    return flags, rows


def short(value):
    text = "-" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else text[:18] + "..." + text[-19:]


def print_table(title, names, rows):
    cells = [[title] + names] + rows
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


directories = sys.argv[1:]
if not directories or any(word.startswith("-") for word in directories):
    refuse(2, "expected the directories of runs: compare_runs.sh DIR DIR...")
runs = [look(directory.rstrip("/") or "/") for directory in directories]
names = [short(directory) for directory in directories]
flags = sorted({flag for run in runs for flag in run[0]})
differing = [flag for flag in flags if len({json.dumps(run[0].get(flag)) for run in runs}) > 1]
if differing:
    print_table("flag", names, [[flag] + [short(run[0].get(flag)) for run in runs] for flag in differing])
else:
    print("no flag differs")
print()
order = list(dict.fromkeys(name for run in runs for name in run[1]))
print_table("result", names, [[name] + [short(run[1].get(name, "-")) for run in runs] for name in order])
PYTHON
