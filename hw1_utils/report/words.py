"""Names and numbers as they stand in a sentence: nothing is taken for markup, and nothing is "1 times" anything."""

import re

# What GitHub, Jupyter and mistune give a meaning to inside a line; underscores between letters have none.
SPECIAL = re.compile(r"[*`<>\[\]|~$@]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.", re.IGNORECASE)


def literal(name: str) -> str:
    """A name that comes from outside, of a class, a file or an encoder, as Markdown that shows it letter by letter."""
    text = " ".join(name.split()).replace("&", "&amp;").replace("\\", "&#92;")  # Jupyter takes \\( for a formula
    return SPECIAL.sub(r"\\\g<0>", text)


def sentence(text: str) -> str:
    """With a capital letter in front."""
    return text[:1].upper() + text[1:]


def number(value: float) -> str:
    """A number that is not negative as one says it: 1,234, 121, 2.5, 0.083, 0."""
    return f"{value:,.0f}" if value >= 9.95 or value == 0 else f"{value:.1f}" if value >= 0.95 else f"{value:.2g}"


def points(share: float, digits: int = 1) -> str:
    """A share, or the difference of two, in points: what lies halfway is rounded alike, however it was computed."""
    return f"{round(share * 100, 9):.{digits}f}"


def in_points(*shares: float) -> list[str]:
    """Shares in points, with as many digits as it takes to see of each whether it is above zero or below."""
    digits = next(d for d in range(1, 9) if d == 8 or all(abs(x) < 1e-9 or abs(x) * 100 >= 0.5 / 10**d for x in shares))
    return [points(0.0 if abs(x) < 1e-9 else x, digits) for x in shares]


def times(a: float, b: float) -> str:
    """How a compares with b, to be followed by "the other's" and b: "121 times", "about", "83% of", "against"."""
    if not (a > 0 and b > 0):
        return "against"
    if _as_good_as_equal(a, b):
        return "about"
    return f"{number(a / b)} times" if a > b else f"{number(100 * a / b)}% of"


def faster(a: float, b: float) -> str:
    """How a rate a compares with b, to be followed by the other's owner: "185 times slower than"."""
    if not (a > 0 and b > 0):
        return "unlike"
    if _as_good_as_equal(a, b):
        return "about as fast as"
    return f"{number(max(a, b) / min(a, b))} times {'faster' if a > b else 'slower'} than"


def _as_good_as_equal(a: float, b: float) -> bool:
    return number(max(a, b) / min(a, b)) == "1.0"
