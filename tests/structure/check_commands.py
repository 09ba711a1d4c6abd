#!/usr/bin/env python3
"""Every shell command that README.md, docs/EXTENDING.md and the pages of examples/ show is run by a test or by CI: a block in a fence is run by
scripts/run_readme_blocks.sh (the marked ones of README and docs/guide) or tests/extending/run_commands.sh, or run_elsewhere.json says which test covers it and why
it is not run as it stands; and the scripts that the pages name are run too.

Usage: check_commands.py REPOSITORY"""

import json
import pathlib
import re
import sys

SHELL = {"", "bash", "sh", "shell", "console"}
MARKER = re.compile(r"<!-- run: (hub|pi) \S+( &)? -->")
FENCE = re.compile(r"^( *)```(.*)$")


def blocks(text):
    """(line number, the line before, language, commands) of each fenced block."""
    lines = text.splitlines()
    begin = None
    for number, line in enumerate(lines):
        match = FENCE.match(line)
        if not match:
            continue
        if begin is None:
            begin = number
        else:
            yield begin + 1, lines[begin - 1] if begin else "", lines[begin].strip().strip("`").strip(), lines[begin + 1:number]
            begin = None


def run_as_it_stands(document, before, language):
    """As the two scripts choose what they run."""
    if document == "README.md" or document.startswith("docs/guide/"):
        return language == "bash" and MARKER.fullmatch(before) is not None
    return document == "docs/EXTENDING.md" and language == ""


def problems(root):
    here = pathlib.Path(__file__).parent
    listed = {(entry["document"], entry["first_line"]): entry for entry in json.loads((here / "run_elsewhere.json").read_text())}
    cmake = "\n".join(path.read_text() for path in sorted((root / "tests").rglob("CMakeLists.txt")))
    tests = set(re.findall(r"add_test\(NAME ([\w.]+)", cmake)) | {f"examples.{name}" for name in re.findall(r"ecopipe_example\((\w+)", cmake)}
    for runner in ("documentation.readme", "extending.commands"):
        if runner not in tests:
            yield f"tests: expected a test {runner}, which runs the blocks of a page; found none"
    pages = [root / "README.md", root / "CONTRIBUTING.md", root / "docs/EXTENDING.md", *sorted((root / "docs/guide").glob("*.md")),
             *sorted((root / "docs/reference").glob("*.md")), *sorted((root / "examples").rglob("*.md"))]
    used = set()
    count = 0
    for page in pages:
        document = page.relative_to(root).as_posix()
        for number, before, language, commands in blocks(page.read_text()):
            if language not in SHELL:
                continue
            count += 1
            if run_as_it_stands(document, before, language):
                continue
            first = next((line.split("#")[0].strip() for line in commands if line.strip()), "")
            if (document, first) in listed:
                used.add((document, first))
            else:
                yield f"{document}:{number}: '{first}': no test runs this block, and tests/structure/run_elsewhere.json does not say what covers it"
    for (document, first), entry in listed.items():
        place = f"tests/structure/run_elsewhere.json: {document}: '{first}'"
        if (document, first) not in used:
            yield f"{place}: expected such a block that nothing runs, found none"
        if not entry["reason"].strip() or not entry["covered_by"]:
            yield f"{place}: expected a reason and what covers it"
        for cover in entry["covered_by"]:
            if cover not in tests and not (cover == ".ci/run" and (root / cover).exists()):
                yield f"{place}: expected a test or .ci/run, found '{cover}'"
    scripts = [path.relative_to(root).as_posix() for path in sorted((root / "examples").rglob("*.sh"))] + ["scripts/demo.sh"]
    for script in scripts:
        if script not in cmake:
            yield f"{script}: expected a test that runs it (tests/examples/CMakeLists.txt), found none"
    if not count or not scripts:
        yield "expected commands and examples, found none"


found = list(problems(pathlib.Path(sys.argv[1])))
print("\n".join(found) or "every command on the pages is run")
sys.exit(1 if found else 0)
