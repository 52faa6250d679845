"""Numbers as people read them."""


def many(number: int, noun: str) -> str:
    """How many there are of something whose plural ends in s: "1 object", "2,000 objects"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
