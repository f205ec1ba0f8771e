"""What links.py finds, on pages made up for it."""

import pathlib
import tempfile
import unittest

from links import complaints


class Links(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name).resolve()
        self.write("docs/README.md", "# Index\n[a](a.md) [b](a.md#two-words-and-code) [out](https://example.org/x#y)\n")
        self.write("docs/a.md", "# A\n## Two words, and `code`\n[back](README.md#index) [here](#a)\n")

    def write(self, name, text):
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def test_sound_pages_have_none(self):
        self.assertEqual(complaints(self.root, sources=True), [])

    def test_missing_file(self):
        self.write("README.md", "[x](docs/missing.md)\n")
        self.assertEqual(complaints(self.root), ["README.md: docs/missing.md: there is no such file"])

    def test_missing_picture(self):
        self.write("README.md", "![x [y]](docs/missing.png)\n")
        self.assertEqual(complaints(self.root), ["README.md: docs/missing.png: there is no such file"])

    def test_missing_section(self):
        self.write("docs/a.md", "# A\n## Two words, and `code`\n[x](README.md#no-index)\n")
        self.assertEqual(complaints(self.root), ["docs/a.md: README.md#no-index: there is no such section"])

    def test_heading_in_a_fence_is_no_section(self):
        self.write("docs/README.md", "[a](a.md#b)\n")
        self.write("docs/a.md", "```\n# B\n```\n")
        self.assertEqual(complaints(self.root), ["docs/README.md: a.md#b: there is no such section"])

    def test_link_out_of_the_pages(self):
        self.write("docs/a.md", "# A\n## Two words, and `code`\n[x](../..)\n")
        self.assertEqual(complaints(self.root), [f"docs/a.md: ../..: leads out of {self.root}"])

    def test_page_that_nothing_leads_to(self):
        self.write("docs/lab/b.md", "# B\n")
        self.assertEqual(complaints(self.root), ["docs/lab/b.md: no link from docs/README.md leads there"])

    def test_code_is_no_link(self):
        self.write("README.md", "`[x](missing.md)`\n\n```\n[x](missing.md)\n```\n")
        self.assertEqual(complaints(self.root), [])

    def test_cited_section(self):
        self.write("src/a.cpp", '// docs/a.md, "Two words,\n// and code"; docs/a.md, section "A"; docs/a.md.\n')
        self.assertEqual(complaints(self.root, sources=True), [])

    def test_cited_section_that_is_missing(self):
        self.write("src/a.cpp", '// docs/a.md, "Three words"\n')
        self.assertEqual(len(complaints(self.root, sources=True)), 1)

    def test_named_file(self):
        self.write("src/a.cpp", "")
        self.write("docs/a.md", "# A\n## Two words, and `code`\n`src/a.cpp` `src/` `src/b.cpp`\n")
        self.assertEqual(complaints(self.root, sources=True), ["docs/a.md: names src/b.cpp, which does not exist"])

    def test_cited_page_that_is_missing(self):
        self.write("src/a.cpp", "// docs/b.md\n")
        self.assertEqual(len(complaints(self.root, sources=True)), 1)


if __name__ == "__main__":
    unittest.main()
