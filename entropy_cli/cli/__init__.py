"""The only room with options, streams and exit codes."""
