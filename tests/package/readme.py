"""README.md as its reader follows it: writes the files that it prints, and runs the commands that it prints.

    readme.py README.md files FOLDER               CMakeLists.txt, main.cpp and app.py, byte for byte
    readme.py README.md run HEADING [--without=WORD]  every command under that heading, in the current folder

Commands stand in blocks of `sh`, and of `console` behind "$ ", where lines of output follow that must come, in that order;
".." stands for what may come between. Numbers in scientific notation may differ."""

import argparse
import pathlib
import re
import subprocess
import sys

# The last block of a language is the program; those in Python before it need torch.
FILES = {"cmake": "CMakeLists.txt", "cpp": "main.cpp", "python": "app.py"}
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def write_files(readme, folder):
    blocks = dict(BLOCK.findall(readme))
    folder.mkdir(parents=True, exist_ok=True)
    for language, name in FILES.items():
        (folder / name).write_text(blocks[language])


def section(readme, heading):
    parts = re.split(r"^## (.*)$", readme, flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2]))
    return sections[heading]


def steps(text):
    """(command, expected lines) of each block of sh and each "$ " line of a console."""
    for language, block in BLOCK.findall(text):
        if language == "sh":
            yield block.strip(), []
        elif language == "console":
            for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                command, *lines = part.strip().split("\n")
                yield command, [line for line in lines if line and ".." not in line]


def shape_of(line):
    return re.sub(r"\d\.\d+e[-+]\d+", "#", line.rstrip())


def check_output(command, output, expected):
    came = iter([shape_of(line) for line in output.split("\n")])
    for line in expected:
        if shape_of(line) not in came:
            sys.exit(f"README.md says that `{command}` prints\n  {line}\nhere it printed\n{output}")


def run(readme, heading, without):
    exported = ""  # an export holds for what follows, as in the reader's shell
    ran = 0
    for command, expected in steps(section(readme, heading)):
        if without and any(word in command for word in without):
            continue
        print("$", command, flush=True)
        done = subprocess.run(["bash", "-ec", exported + command], stdout=subprocess.PIPE, text=True)
        print(done.stdout, flush=True)
        if done.returncode:
            sys.exit(f"exit code {done.returncode}")
        check_output(command, done.stdout, expected)
        if command.startswith("export "):
            exported += command + "\n"
        ran += 1
    if not ran:
        sys.exit(f"README.md has no command under {heading!r}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readme", type=pathlib.Path)
    commands = parser.add_subparsers(dest="command", required=True)
    files = commands.add_parser("files")
    files.add_argument("folder", type=pathlib.Path)
    running = commands.add_parser("run")
    running.add_argument("heading")
    running.add_argument("--without", action="append", metavar="WORD", help="leave out commands with this word")
    arguments = parser.parse_args()
    readme = arguments.readme.read_text()
    if arguments.command == "files":
        write_files(readme, arguments.folder)
    else:
        run(readme, arguments.heading, arguments.without)


main()
