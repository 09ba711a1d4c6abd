#!/usr/bin/env python3
"""Which module may include which, and which of its rooms; that no files include one another; where torch, ZeroMQ and cereal may be known, that mutexes are those whose use clang checks (core/mutex.h), and that a class's name is one class's (two of a
name in one program are one to the linker, which takes either's functions for both). Prints each violation; exit 1 if any.

Usage: check_modules.py REPOSITORY"""

import pathlib
import re
import sys

MAY_INCLUDE = {
    "core": set(),
    "domain": {"core"},
    "planner": {"core", "domain"},
    "transport": {"core", "domain"},
    "stage_runtime": {"core", "domain", "planner", "transport"},
    "orchestrator": {"core", "domain", "planner", "transport", "stage_runtime", "fl_server"},
    "fl_server": {"core", "domain", "transport", "stage_runtime", "orchestrator"},
    "bench": {"core", "domain", "planner", "transport", "stage_runtime", "orchestrator", "fl_server"},
}
# Rooms of modules, each built on those before it alone: a file may include its own folder and earlier ones.
ROOMS = [
    "planner/schedule", "planner/cost", "planner/simulate", "planner/search", "planner/report",
    "transport", "transport/security", "transport/wire", "transport/net", "transport/data", "transport/web",
    "stage_runtime/data", "stage_runtime/engine/model", "stage_runtime/engine/run", "stage_runtime/stage",
    "orchestrator/session", "orchestrator/view", "orchestrator/train",
    # A cluster's end of a federation is a way to train; the other rooms of fl_server know no orchestrator.
    "fl_server/client",
    "orchestrator/program",
    "fl_server/numbers", "fl_server/strategies", "fl_server/workers", "fl_server/simulation", "fl_server/state",
    "fl_server/view", "fl_server/service", "fl_server/program",
]
TORCH = re.compile(r"^(torch|ATen|c10)/")
# The files that include torch: few, and only .cpp files or headers that say so.
TORCH_HOME = ("stage_runtime/engine/",)
WIRE = re.compile(r"^(zmq(\.hpp|\.h|_addon\.hpp)|cereal/)")
BANNED = re.compile(r"^cereal/(types/memory|types/polymorphic|archives/)")
NAMESPACE = re.compile(r"^namespace ?([\w:]*) \{|^\}  // namespace")
CLASS = re.compile(r"^(?:struct|class|enum(?: class)?) (\w+)(?!\w|::)[^;]*$")
UNCHECKED = re.compile(r"\bstd::(\w*mutex|condition_variable\w*)\b")
INCLUDE = re.compile(r'^\s*#include\s+[<"]([^>"]+)[>"]')


def room(name):
    """The folder of a file, as far as ROOMS tells folders apart; its module where they are one."""
    at = [r for r in ROOMS if name.rsplit("/", 1)[0] == r or name.startswith(r + "/") and r != "transport"]
    return max(at, key=len) if at else name.split("/")[0]


def rooms_problem(name, target):
    """Why a file of one room must not include that of another, or nothing."""
    here, there = room(name), room(target)
    if here == there or here not in ROOMS or there not in ROOMS:
        return None
    crosses = here.split("/")[0] != there.split("/")[0]
    of_federation = {"orchestrator", "fl_server"} == {here.split("/")[0], there.split("/")[0]}
    if crosses and not of_federation:
        return None
    if of_federation and (here, there) != ("orchestrator/program", "fl_server/client") and here != "fl_server/client":
        return f"{here} must not include {target}"
    return None if ROOMS.index(there) < ROOMS.index(here) else f"{here} must not include {target}"


def rings(root):
    """Files that include one another, a header and its source counting as one (Tarjan's components)."""
    includes = {}
    for module in MAY_INCLUDE:
        for path in sorted((root / module).rglob("*")):
            if path.suffix in (".h", ".cpp"):
                stem = path.relative_to(root).as_posix().rsplit(".", 1)[0]
                found = {m.group(1).rsplit(".", 1)[0] for m in map(INCLUDE.match, path.read_text().splitlines()) if m}
                includes.setdefault(stem, set()).update(found - {stem})
    index, low, stack, out = {}, {}, [], []

    def visit(stem):
        index[stem] = low[stem] = len(index)
        stack.append(stem)
        for other in includes[stem] & includes.keys():
            if other not in index:
                visit(other)
                low[stem] = min(low[stem], low[other])
            elif other in stack:
                low[stem] = min(low[stem], index[other])
        if low[stem] == index[stem]:
            ring = stack[stack.index(stem):]
            del stack[stack.index(stem):]
            if len(ring) > 1:
                out.append("include one another: " + ", ".join(sorted(ring)))

    sys.setrecursionlimit(10000)
    for stem in includes:
        if stem not in index:
            visit(stem)
    return out


def problems(root):
    for module, allowed in MAY_INCLUDE.items():
        for path in sorted((root / module).rglob("*")):
            if path.suffix not in (".h", ".cpp"):
                continue
            name = path.relative_to(root).as_posix()
            lines = path.read_text().splitlines()
            if path.suffix == ".h" and (not lines or lines[0] != "#pragma once"):
                yield f"{name}:1: a header starts with #pragma once"
            for number, line in enumerate(lines, 1):
                if (unchecked := UNCHECKED.search(line)) and name != "core/mutex.h":
                    yield f"{name}:{number}: {unchecked.group()}: clang checks the use of core/mutex.h alone"
                match = INCLUDE.match(line)
                if not match:
                    continue
                target = match.group(1)
                first = target.split("/")[0]
                if first in MAY_INCLUDE and first != module and first not in allowed:
                    yield f"{name}:{number}: {module} must not include {target}"
                elif first in MAY_INCLUDE and (why := rooms_problem(name, target)):
                    yield f"{name}:{number}: {why}"
                if TORCH.match(target) and not name.startswith(TORCH_HOME):
                    yield f"{name}:{number}: torch is included in stage_runtime's engine and model alone"
                if WIRE.match(target) and module != "transport":
                    yield f"{name}:{number}: ZeroMQ and cereal live in transport alone"
                if BANNED.match(target):
                    yield f"{name}:{number}: {target} has no place on a wire"


def twice(root):
    """Classes with external linkage that two files define."""
    where = {}
    for module in MAY_INCLUDE:
        for path in sorted((root / module).rglob("*")):
            if path.suffix not in (".h", ".cpp"):
                continue
            spaces = []
            for number, line in enumerate(path.read_text().splitlines(), 1):
                space = NAMESPACE.match(line)
                if space and line.startswith("}"):
                    spaces.pop()
                elif space:
                    spaces.append(space.group(1))
                match = CLASS.match(line)
                if not match or "" in spaces:
                    continue
                name = "::".join([*spaces, match.group(1)])
                here = f"{path.relative_to(root).as_posix()}:{number}"
                if name in where:
                    yield f"{here}: {name} is another class at {where[name]}"
                where[name] = here
    if not where:
        yield "expected classes, found none"


checked = pathlib.Path(sys.argv[1])
found = [*problems(checked), *rings(checked), *twice(checked)]
print("\n".join(found) or "every include keeps to its module, every class has its name alone, every mutex is checked")
sys.exit(1 if found else 0)
