"""placeholder"""
def simulate() -> None:
    """x"""
