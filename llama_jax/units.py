"""Numbers as people read them."""


def human_count(value: float) -> str:
    """Three digits and a letter, as in "6.74B"."""
    for unit, scale in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= scale:
            return f"{value / scale:.3g}{unit}"
    return f"{value:.3g}"
