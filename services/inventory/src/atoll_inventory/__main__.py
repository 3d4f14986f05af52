"""`python -m atoll_inventory`, with the project folder as working directory: options, then run until told to stop."""

import sys

import atoll
import atoll.web
from atoll_inventory.app import make_app
from atoll_inventory.settings import Settings


def main() -> None:
    try:
        options = atoll.Options.from_environment()
        atoll.logs.configure(options)
        app = make_app(options, Settings.from_environment())
    except atoll.FatalError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    atoll.telemetry.start(options)
    atoll.web.serve(app, options)
    atoll.telemetry.shutdown()


if __name__ == "__main__":
    main()
