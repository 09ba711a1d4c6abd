#!/usr/bin/env python3
"""The build compiles several files of a library as one (CMAKE_UNITY_BUILD), the presets for developing each by itself: a name that two
files of a module each define for themselves, in an anonymous namespace, compiles in the one and not in the other. So does a function in
an anonymous namespace with the name and the parameters of one that a header declares, which another file includes. Says which.

Usage: check_names.py REPOSITORY"""

import collections
import pathlib
import re
import sys

MODULES = ("bench", "core", "domain", "fl_server", "fuzz", "orchestrator", "planner", "stage_runtime", "transport")
ANONYMOUS = re.compile(r"^namespace \{\n(.*?)^\}  // namespace$", re.DOTALL | re.MULTILINE)
# What stands at the left margin: a type, an alias with what it is, a function with its parameters, a variable.
TYPE = re.compile(r"^(?:struct|class|enum class)\s+(\w+)[^;\n]*\{", re.MULTILINE)
ALIAS = re.compile(r"^using\s+(\w+)\s*=\s*(.+?);", re.MULTILINE)
FUNCTION = re.compile(r"^(?!TEST)[A-Za-z_][\w:<>,&*\[\] ]*?[ &*](\w+)\(([^;{}]*?)\)\s*(?:const\s*)?\{", re.MULTILINE)
DECLARED = re.compile(r"^(?!using|typedef|return)[A-Za-z_\[][\w:<>,&*\[\] ]*?[ &*](\w+)\(([^;{}()]*?)\)\s*(?:;|\{)", re.MULTILINE)
VARIABLE = re.compile(r"^(?:constexpr|const|std::|int|bool|thread_local)[\w:<>,&* ]*?[ &*](\w+)(?:\[\w*\])?(?:\s*=|\s*\{|;)", re.MULTILINE)


def parameters(text):
    """What tells one function of a name from another: the types of its parameters, without their names and defaults."""
    types = [re.sub(r"\s+", " ", re.sub(r"\s*=.*|\b\w+$", "", part).strip()) for part in text.split(",")]
    return f"function({', '.join(types)})"


def defined(text):
    """(name, what tells apart two that may stand side by side) of each definition in an anonymous namespace."""
    for anonymous in ANONYMOUS.finditer(text):
        body = anonymous[1]
        yield from ((found[1], "type") for found in TYPE.finditer(body))
        yield from ((found[1], "alias " + found[2]) for found in ALIAS.finditer(body))
        yield from ((found[1], "variable") for found in VARIABLE.finditer(body))
        yield from ((found[1], parameters(found[2])) for found in FUNCTION.finditer(body))


def clash(one, other):
    """Whether two definitions of a name cannot stand in one file: two functions can overload, two aliases can be the same."""
    if one.startswith("function") and other.startswith("function"):
        return one == other
    return not (one.startswith("alias") and one == other)


def unqualified(what):
    """Types as a file in another namespace may write them."""
    return re.sub(r"\b[a-z_]\w*::", "", what)


def main():
    root = pathlib.Path(sys.argv[1])
    problems = []
    declared = collections.defaultdict(set)
    for module in (*MODULES, "tests"):
        for path in sorted((root / module).rglob("*.h")):
            for found in DECLARED.finditer(ANONYMOUS.sub("", path.read_text())):
                declared[found[1], unqualified(parameters(found[2]))].add(path.relative_to(root))
    modules = [root / module for module in MODULES] + [path for path in sorted((root / "tests").iterdir()) if path.is_dir()]
    for module in modules:
        names = collections.defaultdict(list)
        # A program's main file is compiled for its program alone.
        for path in sorted(path for path in module.rglob("*.cpp") if not path.name.endswith("_main.cpp")):
            for name, what in defined(path.read_text()):
                names[name].append((path, what))
                problems += [f"{path.relative_to(root)}: {name} has the parameters of that in {header}, which a file compiled with it may include"
                             for header in sorted(declared.get((name, unqualified(what)), ()))]
        for name, places in sorted(names.items()):
            for at, (path, what) in enumerate(places):
                problems += [f"{path.relative_to(root)}: {name} is also in {other.relative_to(root)}, which the build compiles with it"
                             for other, its in places[:at] if other != path and clash(what, its)]
    print("\n".join(problems), file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
