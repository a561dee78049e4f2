"""Numbers as people read them: a true minus sign, no negative zero, nothing for what is not there."""

import math

MINUS = "\N{MINUS SIGN}"


def number(value: float | int | None, digits: int | None = None, *, sign: bool = False) -> str:
    """With `digits` after the point, or by default as short as it goes; `sign` puts a plus before what is above 0."""
    if value is None or math.isnan(value):
        return ""
    if digits is None:
        return f"{value:{'+' if sign and value else ''}g}".replace("-", MINUS)
    rounded = round(float(value), digits) + 0.0
    return f"{rounded:{'+' if sign and rounded else ''},.{digits}f}".replace("-", MINUS)


def signed(value: float | int | None, digits: int = 2) -> str:
    """A change: `number` with its sign."""
    return number(value, digits, sign=True)


def interval(low: float | int | None, high: float | int | None, digits: int = 2) -> str:
    """From one change to another."""
    return f"{signed(low, digits)} to {signed(high, digits)}" if signed(low) and signed(high) else ""


def p_value(value: float | int | None, *, equals: str = "") -> str:
    """Three digits, or that it is below them; `equals` stands before digits ("p = 0.012", "p < 0.001")."""
    shown = number(value, 3)
    return "< 0.001" if shown and value is not None and value < 0.001 else shown and equals + shown


def percent(part: float | int, whole: float | int) -> str:
    """A share, with as many digits as the count that it is of carries: "8 of 24" below a hundred, "33%", "33.3%"."""
    if whole < 100:
        return f"{part:,.0f} of {whole:,.0f}"
    return f"{number(100 * part / whole, 0 if whole < 1000 else 1)}%"
