"""A header as Doxygen is to see it, on stdout, line for line: the project's plain comments get Doxygen's marks.

The comment at the head of a file becomes the page of that file. In C headers `/* .. */` becomes `/** .. */` before a declaration
and `/**< .. */` behind one; headings of sections, `/* ---- .. */`, stay what they are. What means the same everywhere and is said
once, at the head of smlora.h or beside Workspace, gets its sentence here."""

import re
import sys

SAID_ONCE = [
    # (a line, the sentence behind it)
    (r"size_t struct_size;", "What its caller was compiled with; the init function sets it."),
    (r"int32_t reserved;", "Stays 0."),
    (r"(smlora_workspace|Workspace) workspace;", "Scratch memory; may be left empty."),
]
SAID_BEFORE = [
    # (the beginning of a declaration without a comment, the sentence before it)
    (r"SMLORA_API void smlora_\w+_init\(", "Sets struct_size and the defaults."),
    (r"SMLORA_API smlora_status smlora_\w+_workspace\(", "Bytes that the operation's workspace needs for T tokens."),
    (r"\[\[nodiscard\]\] SMLORA_API std::size_t \w+_workspace\(", "Bytes that the operation's workspace needs for T tokens."),
]


def head_of_cpp(text):
    head = re.match(r"(?:^//.*\n)+(?=#pragma once\n)", text, re.MULTILINE)
    if head is None:
        return text
    lines = re.sub(r"^//", "///", head[0], flags=re.MULTILINE)
    return lines + text[head.end() :].replace("#pragma once\n", "/// @file\n", 1)


def c_comments(text):
    first, rest = text.split("\n */\n", 1)
    head = first.replace("/* ", "/** ", 1) + "\n * @file */\n"
    rest = re.sub(r"^(\s*)/\*(?! ----)", r"\1/**", rest, flags=re.MULTILINE)
    rest = re.sub(r"^(.*\S.*?)\s/\*(?!\*)", r"\1 /**<", rest, flags=re.MULTILINE)
    return head + rest


def said_once(text):
    for line, sentence in SAID_ONCE:
        text = re.sub(rf"^( *{line})$", rf"\1 /**< {sentence} */", text, flags=re.MULTILINE)
    for declaration, sentence in SAID_BEFORE:
        text = re.sub(rf"(?<!\*/\n)^({declaration})", rf"/** {sentence} */ \1", text, flags=re.MULTILINE)
    return text


with open(sys.argv[1]) as header:
    content = header.read()
print(said_once(c_comments(content) if sys.argv[1].endswith(".h") else head_of_cpp(content)), end="")
