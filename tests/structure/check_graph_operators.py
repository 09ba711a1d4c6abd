#!/usr/bin/env python3
"""Whether the exporter and the programs know the same operators of graphs. Exit 1 with what one of them lacks.

Usage: check_graph_operators.py REPOSITORY"""

import importlib.util
import pathlib
import re
import sys

root = pathlib.Path(sys.argv[1])
spec = importlib.util.spec_from_file_location("operators", root / "scripts/graph_export/operators.py")
exporter = importlib.util.module_from_spec(spec)
spec.loader.exec_module(exporter)
theirs = exporter.ALLOWED | exporter.ALLOWED_LATER | exporter.DRAWS
text = (root / "stage_runtime/engine/model/graph/operators.cpp").read_text(encoding="utf-8")
listed = re.search(r"kNames =\n(.*?);\n", text, re.S).group(1)
names = "".join(re.findall(r'"([^"]*)"', listed)).split()
problems = [f"operators.cpp lacks {name}" for name in sorted(theirs - set(names))]
problems += [f"operators.py lacks {name}" for name in sorted(set(names) - theirs)]
if names != sorted(set(names)):
    problems.append("operators.cpp: the names are not in order, each once")
print("\n".join(problems) or f"{len(names)} operators, the same on both sides")
sys.exit(1 if problems else 0)
