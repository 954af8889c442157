"""Reading image folders."""
