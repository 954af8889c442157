"""The networks of generators whose family has more than one file."""
