"""Check the models against a folder of parity fixtures: python check_parity.py DIR.

Prints one line per file with its largest error; exits with 1 if one is above what is allowed (1e-4,
or what came with the fixtures), or if there is nothing to check.
"""

import argparse
import sys

from longscale.errors import LongscaleError
from longscale.models.parity import check_folder


def main() -> int:
    """Exit status of the check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", metavar="DIR", help="folder with parity fixtures (*.npz, *.json)")
    try:
        results = check_folder(parser.parse_args().folder)
    except LongscaleError as error:
        print(error, file=sys.stderr)
        return 1
    print(*results, sep="\n")
    return int(any(result.failed for result in results))


if __name__ == "__main__":
    sys.exit(main())
