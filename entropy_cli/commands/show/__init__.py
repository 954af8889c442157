"""Draw the assignments of single images, token by token."""
