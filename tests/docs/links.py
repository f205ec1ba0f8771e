"""Every link of the project's Markdown pages leads somewhere, and every page of docs/ can be reached from docs/README.md. In the
repository, the files that pages name exist, and so do the pages and sections that comments cite.

    links.py ROOT [--sources]     complaints on stdout, one a line; exit code 1 if there are any

ROOT is the folder into which the pages were installed or, with --sources, the repository."""

import argparse
import pathlib
import re
import sys

FENCE = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"\[(?:[^\[\]]|\[[^\[\]]*\])*\]\(\s*<?([^)\s>]+)>?[^)]*\)")
HEADING = re.compile(r"^#{1,6} +(.*?) *#*$", re.MULTILINE)
# docs/design.md, "Mathematics"; also across a line's end with the comment's mark.
CITATION = re.compile(r'\b(docs/[\w/.-]+\.md)(?:,(?:[\s/*#]+section)?[\s/*#]+"([^"]+)")?')
# A file or folder of the repository, as a page names it.
NAMED = re.compile(r"`((?:benchmarks|cmake|docs|emulator|examples|include|kernel_templates|python|src|tests|tools)/[\w/.-]*)`")
SOURCES = {".hpp", ".cpp", ".h", ".cuh", ".py", ".cmake", ".txt", ".toml"}


def without_code(text):
    return CODE.sub(lambda match: "`" + "x" * (len(match[0]) - 2) + "`", FENCE.sub("", text))


def headings(text):
    return [re.sub(r"[`*]", "", heading) for heading in HEADING.findall(FENCE.sub("", text))]


def anchors(text):
    """As GitHub makes them."""
    found = set()
    for heading in headings(text):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        name, count = slug, 0
        while name in found:
            count += 1
            name = f"{slug}-{count}"
        found.add(name)
    return found


def pages_of(root):
    return sorted(page for page in root.rglob("*.md") if page.relative_to(root).parts[0] not in ("build", ".git"))


def links_of(page):
    """(target as written, the file it names, anchor)"""
    for target in LINK.findall(without_code(page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        yield target, (page.parent / path).resolve() if path else page.resolve(), anchor


def dead_links(root):
    for page in pages_of(root):
        name = page.relative_to(root)
        for target, file, anchor in links_of(page):
            if not file.exists():
                yield f"{name}: {target}: there is no such file"
            elif not file.is_relative_to(root.resolve()):
                yield f"{name}: {target}: leads out of {root}"
            elif anchor and file.suffix == ".md" and anchor not in anchors(file.read_text()):
                yield f"{name}: {target}: there is no such section"


def unreachable_pages(root):
    index = (root / "docs" / "README.md").resolve()
    reached, ahead = {index}, [index]
    while ahead:
        for _, file, _ in links_of(ahead.pop()):
            if file.suffix == ".md" and file.exists() and file not in reached:
                reached.add(file)
                ahead.append(file)
    for page in pages_of(root / "docs"):
        if page.resolve() not in reached:
            yield f"{page.relative_to(root)}: no link from docs/README.md leads there"


def wrong_citations(root):
    for source in sorted(root.rglob("*")):
        skipped = source.relative_to(root).parts[0] in ("build", ".git") or source.suffix not in SOURCES
        if skipped or not source.is_file() or source.parent == pathlib.Path(__file__).resolve().parent:
            continue
        for file, section in CITATION.findall(source.read_text(errors="replace")):
            page = root / file
            if not page.exists():
                yield f"{source.relative_to(root)}: cites {file}, which does not exist"
            elif section and re.sub(r"[\s/*#]+", " ", section) not in headings(page.read_text()):
                yield f'{source.relative_to(root)}: cites {file}, "{section}", which has no such section'


def missing_files(root):
    for page in pages_of(root):
        if page.is_relative_to(root / "docs" / "lab") or page.name == "CHANGELOG.md":
            continue  # they say what was there in their time
        for named in NAMED.findall(page.read_text()):
            if not (root / named).exists():
                yield f"{page.relative_to(root)}: names {named}, which does not exist"


def complaints(root, sources=False):
    found = [*dead_links(root), *unreachable_pages(root)]
    return [*found, *missing_files(root), *wrong_citations(root)] if sources else found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=pathlib.Path)
    parser.add_argument("--sources", action="store_true", help="ROOT is the repository")
    arguments = parser.parse_args()
    root = arguments.root.resolve()
    found = complaints(root, arguments.sources)
    print("\n".join(found) or f"{len(pages_of(root))} pages, no dead link")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
