"""Show single images token by token."""
