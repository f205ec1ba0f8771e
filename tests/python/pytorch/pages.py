"""Code of the pages in docs/, for tests that run it."""

import pathlib
import re

DOCS = pathlib.Path(__file__).parents[3] / "docs"


def code_of(page, section, language="python"):
    """The first block of a section."""
    text = (DOCS / page).read_text()
    _, found, rest = text.partition(f"\n## {section}\n")
    assert found, f"{page} has no section {section}"
    block = re.search(rf"```{language}\n(.*?)```", rest.partition("\n## ")[0], re.DOTALL)
    assert block, f"{page}, {section}: no block of {language}"
    return block.group(1)


def names_of(page, section):
    """What a block of Python defines."""
    defined = {}
    exec(compile(code_of(page, section), f"{page}, {section}", "exec"), defined)
    return defined
