"""What a command asks for, from the request to the result, without options and streams."""
