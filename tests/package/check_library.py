"""The shared library needs no CUDA library to load, exports every function of smlora.h, and nothing but smlora."""

import re
import subprocess
import sys


def output_of(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main(library, header):
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", output_of("readelf", "--dynamic", library))
    allowed = re.compile(r"(libstdc\+\+|libgcc_s|libc|libm|libdl|libpthread|ld-linux-x86-64|lib[altu]+san)\.so")
    surplus = [name for name in needed if not allowed.match(name)]
    assert needed and not surplus, f"needs {surplus} to load"

    lines = output_of("nm", "--dynamic", "--defined-only", "--demangle", library).splitlines()
    exported = [line.split(maxsplit=2)[2] for line in lines]
    own = re.compile(r"smlora_|smlora::|(typeinfo|typeinfo name|vtable) for smlora::Error$")
    strangers = [symbol for symbol in exported if not own.match(symbol)]
    assert not strangers, f"exports {strangers[:10]}"
    internal = [symbol for symbol in exported if re.match(r"smlora::(util|gpu|jit|cache|ops|cpu|models|capi)::", symbol)]
    assert not internal, f"exports {internal[:10]}"

    with open(header) as text:
        declared = set(re.findall(r"^SMLORA_API [^;(]*?(smlora_\w+)\(", text.read(), re.MULTILINE))
    missing = declared - set(exported)
    assert len(declared) > 40 and not missing, f"does not export {missing}"
    print(f"needs {', '.join(needed)}; exports {len(exported)} symbols, the {len(declared)} C functions among them")


main(*sys.argv[1:])
