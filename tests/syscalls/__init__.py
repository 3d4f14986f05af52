"""A crash at every syscall: of the broker, of a relay, of a consumer."""
