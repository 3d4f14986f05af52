"""`python -m atoll_sales`, with the project folder as working directory: options, then run until told to stop."""

import sys

import atoll
import atoll.web
from atoll_sales.app import make_app


def main() -> None:
    try:
        options = atoll.Options.from_environment()
        app = make_app(options)
    except atoll.FatalError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    atoll.web.serve(app, options)


if __name__ == "__main__":
    main()
