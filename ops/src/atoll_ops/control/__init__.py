"""Control: the operators' HTTP API, behind the gateway at /ops and on a local Unix socket. Knows; the agent acts."""
