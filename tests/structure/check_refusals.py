#!/usr/bin/env python3
"""Every refusal in the sources has an entry with a remedy in docs/TROUBLESHOOTING.md, and every entry is of a refusal that exists.

A refusal is the text of fail(ExitCode::..., ...), or of ecopipe_torch_refuse(...) of the build. In the document a refusal stands in a list item between backquotes, with … for
what differs; the remedy is the paragraph below the list. Usage: check_refusals.py REPOSITORY [--list]"""

import pathlib
import re
import sys

MODULES = ("core", "domain", "planner", "transport", "stage_runtime", "orchestrator", "fl_server", "bench")
CALL = re.compile(r"\b(?:fail|refuse|turn_away|End)\s*[({]\s*ExitCode::k(?!Done)\w+\s*,")
STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"(?:\s*"(?:[^"\\]|\\.)*")*')
PLACE = re.compile(r"\{[^{}]*\}")
# An entry that covered everything would say nothing.
COVERED_MAX = 12
# A refusal whose fixed part is shorter only passes on what another one says.
FIXED_LETTERS_MIN = 10
REMEDY_LETTERS_MIN = 30


def arguments(text, begin):
    """What stands from `begin` to the parenthesis that closes the call."""
    depth, inside, at = 1, False, begin
    while depth and at < len(text):
        character = text[at]
        if inside:
            if character == "\\":
                at += 1
            inside = character != '"'
        elif character == '"':
            inside = True
        else:
            depth += (character == "(") - (character == ")")
        at += 1
    return text[begin:at]


def refusals(root):
    for module in MODULES:
        for path in sorted((root / module).rglob("*.cpp")) + sorted((root / module).rglob("*.h")):
            text = path.read_text()
            for call in CALL.finditer(text):
                found = STRINGS.search(arguments(text, call.end()))
                if not found:
                    continue  # passes on a text
                fixed = "".join(STRING.findall(found.group(0))).replace('\\"', '"').replace("{{", "{").replace("}}", "}")
                message = PLACE.sub("…", fixed).strip()
                if len(re.sub(r"[^a-zA-Z]", "", message)) >= FIXED_LETTERS_MIN:
                    yield message, f"{path.relative_to(root)}:{text.count(chr(10), 0, call.start()) + 1}"


def build_refusals(root):
    path = root / "cmake/torch.cmake"
    text = path.read_text()
    for call in re.finditer(r'^ *ecopipe_torch_refuse\("(.*)"\)$', text, re.M):
        yield re.sub(r"\$\{[^{}]*\}", "…", call.group(1)), f"{path.relative_to(root)}:{text.count(chr(10), 0, call.start()) + 1}"


def entries(document):
    """(pattern, line, remedy) of each item."""
    items, remedy = [], ""
    for number, line in enumerate(document.splitlines() + ["# end"], 1):
        item = re.fullmatch(r"\* `(.+)`", line)
        if item:
            if remedy:
                yield from ((text, at, remedy) for text, at in items)
                items, remedy = [], ""
            items.append((item.group(1), number))
        elif line.startswith("#"):
            yield from ((text, at, remedy) for text, at in items)
            items, remedy = [], ""
        elif line.strip() and items:
            remedy += line


def main():
    root = pathlib.Path(sys.argv[1])
    found = {}
    for message, place in [*refusals(root), *build_refusals(root)]:
        found.setdefault(message, place)
    known = list(entries((root / "docs/TROUBLESHOOTING.md").read_text()))
    problems, covered = [], set()
    for text, line, remedy in known:
        pattern = re.compile(".*".join(re.escape(part) for part in text.split("…")), re.DOTALL)
        matching = [message for message in found if pattern.fullmatch(message)]
        where = f"docs/TROUBLESHOOTING.md:{line}: `{text}`"
        if not matching:
            problems.append(f"{where}: no program says this any more")
        if len(matching) > COVERED_MAX:
            problems.append(f"{where}: covers {len(matching)} refusals; expected at most {COVERED_MAX}")
        if len(re.sub(r"[^a-zA-Z]", "", remedy)) < REMEDY_LETTERS_MIN:
            problems.append(f"{where}: expected a paragraph with its remedy below it")
        covered.update(matching)
    for message in sorted(set(found) - covered):
        problems.append(f"{found[message]}: not in docs/TROUBLESHOOTING.md: {message}")
    if len(found) < 100:
        problems.append(f"expected hundreds of refusals in the sources, found {len(found)}: the search for them is broken")
    print("\n".join(problems) or f"{len(found)} refusals have their remedy, in {len(known)} entries")
    sys.exit(1 if problems else 0)


main()
