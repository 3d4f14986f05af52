"""`python -m atoll_notifications`, in the project folder: options, then run until told to stop."""

import sys

import atoll
import atoll.web
from atoll_notifications.app import make_app
from atoll_notifications.settings import Settings


def main() -> None:
    try:
        options = atoll.Options.from_environment()
        app = make_app(options, Settings.from_environment(options.data))
    except atoll.FatalError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    atoll.web.serve(app, options)


if __name__ == "__main__":
    main()
