#!/usr/bin/env python3
"""Which module may include which, where torch, ZeroMQ and cereal may be known, and that a class's name is one class's (two of a
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
    "orchestrator": {"core", "domain", "planner", "transport", "stage_runtime"},
    "fl_server": {"core", "domain", "transport", "stage_runtime"},
    "bench": {"core", "domain", "planner", "transport", "stage_runtime", "orchestrator", "fl_server"},
}
TORCH = re.compile(r"^(torch|ATen|c10)/")
# The files that include torch: few, and only .cpp files or headers that say so.
TORCH_HOME = ("stage_runtime/engine/", "stage_runtime/model/", "stage_runtime/profiler.cpp",
              "stage_runtime/torch_compat.cpp", "stage_runtime/torch_error.cpp", "stage_runtime/torch_version.h")
WIRE = re.compile(r"^(zmq(\.hpp|\.h|_addon\.hpp)|cereal/)")
BANNED = re.compile(r"^cereal/(types/memory|types/polymorphic|archives/)")
NAMESPACE = re.compile(r"^namespace ?([\w:]*) \{|^\}  // namespace")
CLASS = re.compile(r"^(?:struct|class|enum(?: class)?) (\w+)(?!\w|::)[^;]*$")
INCLUDE = re.compile(r'^\s*#include\s+[<"]([^>"]+)[>"]')


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
                match = INCLUDE.match(line)
                if not match:
                    continue
                target = match.group(1)
                first = target.split("/")[0]
                if first in MAY_INCLUDE and first != module and first not in allowed:
                    yield f"{name}:{number}: {module} must not include {target}"
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
found = [*problems(checked), *twice(checked)]
print("\n".join(found) or "every include keeps to its module, every class has its name alone")
sys.exit(1 if found else 0)
