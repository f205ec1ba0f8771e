"""python -m smlora.adapters: exports an adapter for a server."""

import argparse
import sys

from smlora.adapters._export import export
from smlora.adapters._layouts import LAYOUTS


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m smlora.adapters",
                                     description="Writes an adapter of PEFT as a server reads it.")
    parser.add_argument("path", help="folder of the adapter, which PEFT saved")
    parser.add_argument("--to", required=True, choices=LAYOUTS, help="who reads it")
    parser.add_argument("--out", required=True, help="the folder to write; it must not exist")
    parser.add_argument("--base", help="folder or name of the model [base_model_name_or_path of the adapter]")
    parser.add_argument("--rank", type=int,
                        help="rank of all modules [the largest of the adapter's, or the next that the server has]")
    options = parser.parse_args(arguments)
    try:
        exported = export(options.path, options.to, options.out, base=options.base, rank=options.rank)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{exported.path}: experts of {exported.layers} layers, rank {exported.rank}, scaling {exported.scaling:g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
