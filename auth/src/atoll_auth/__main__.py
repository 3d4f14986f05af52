"""`python -m atoll_auth`: the service. With words after it: commands.py."""

import sys

import atoll
from atoll import web

from . import commands
from .app import make_app
from .settings import Settings


def main() -> None:
    """Exit codes as in the process contract; 64 with one line for a wrong configuration."""
    if len(sys.argv) > 1:
        sys.exit(commands.run(sys.argv[1:]))
    try:
        options = atoll.Options.from_environment()
        web.serve(make_app(options, Settings.from_environment()), options)
    except atoll.FatalError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
