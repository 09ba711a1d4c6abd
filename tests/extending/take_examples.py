#!/usr/bin/env python3
"""Takes the examples out of docs/EXTENDING.md, and checks that the lines which it says to change are there.

Usage: take_examples.py REPOSITORY DIRECTORY     writes each ```cpp block that follows <!-- file: NAME --> to DIRECTORY/NAME
       take_examples.py REPOSITORY               checks the ```diff blocks alone"""

import pathlib
import re
import sys

root = pathlib.Path(sys.argv[1])
document = (root / "docs/EXTENDING.md").read_text()
files = re.findall(r"<!-- file: (\S+) -->\n```cpp\n(.*?)\n```\n", document, re.DOTALL)
if len(files) != document.count("```cpp"):
    sys.exit("docs/EXTENDING.md: a ```cpp block without its <!-- file: NAME -->")
if len(sys.argv) > 2:
    for name, text in files:
        path = pathlib.Path(sys.argv[2]) / name
        if not path.exists() or path.read_text() != text + "\n":
            path.write_text(text + "\n")
    sys.exit(0)

problems = []
changes = re.findall(r"```diff\n--- (\S+)\n(.*?)\n```", document, re.DOTALL)
for name, change in changes:
    there = [line[1:] for line in change.splitlines() if line[:1] in (" ", "-")]
    if not (root / name).exists() or "\n".join(there) not in (root / name).read_text():
        problems.append(f"docs/EXTENDING.md: {name}: expected these lines in it, found others:\n" + "\n".join(there))
if not changes or not files:
    problems.append("docs/EXTENDING.md: expected examples and changes, found none")
print("\n".join(problems) or f"{len(files)} examples, {len(changes)} changes whose place is there")
sys.exit(1 if problems else 0)
