"""`python -m atoll_journal` in the project folder: the witness. `… read` and `… verify` look into what it kept."""

import argparse
import sys
from pathlib import Path

from atoll_journal import reading, service, settings
from atoll_journal.errors import FatalError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m atoll_journal")
    verbs = parser.add_subparsers(dest="verb")
    read = verbs.add_parser("read", help="a JSON line an event")
    read.add_argument("--subject", help="of this key alone")
    read.add_argument("--topic", help="of this topic alone")
    read.add_argument("--after", type=int, default=0, metavar="POSITION", help="behind this position")
    read.add_argument("--follow", action="store_true", help="and go on with what comes")
    verify = verbs.add_parser("verify", help="go through the chain of hashes")
    for verb in (read, verify):
        verb.add_argument("--data", type=Path, help="the journal's data directory; default: ATOLL_DATA")
    asked = parser.parse_args()
    try:
        if asked.verb == "read":
            data = asked.data or settings.data_directory()
            return reading.read(data, asked.after, asked.subject, asked.topic, follow=asked.follow)
        if asked.verb == "verify":
            return reading.verify(asked.data or settings.data_directory())
        service.serve(settings.from_environment())
    except FatalError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
