"""`entropy-cli demo`."""
def demo() -> None:
    """x"""
