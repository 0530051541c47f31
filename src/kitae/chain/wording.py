"""Numbers as people read them."""


def count_text(number: float) -> str:
    """ "950", "20.5 M", "16.4 B"."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k")):
        if number >= size:
            number = number / (1e3 if letter == "k" else size)
            return f"{number:.1f} {letter}" if number < 100 else f"{number:,.0f} {letter}"
    return f"{number:,.0f}"


def bytes_text(number: float) -> str:
    """ "3 kB", "12 MB", "1.4 GB"; bytes by thousands, as disks are sold."""
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if number >= size:
            return f"{number / size:.1f} {unit}" if number < 100 * size and unit != "MB" else f"{number / size:,.0f} {unit}"
    return f"{number / 1e3:,.0f} kB" if number >= 1e3 else f"{number:,.0f} B"


def time_text(seconds: float) -> str:
    """ "12 s", "52 min", "3.1 h", "4.5 days"."""
    for size, unit in ((2 * 86400, "days"), (2 * 3600, "h")):
        if seconds >= size:
            return f"{seconds / {'days': 86400, 'h': 3600}[unit]:,.1f} {unit}"
    if seconds >= 120:
        return f"{seconds / 60:.0f} min"
    return f"{seconds:.0f} s" if seconds >= 1 else "< 1 s"


def short(number: float) -> str:
    """Three digits that mean something, or all before the point: "0.0313", "17.1", "9,590"."""
    return f"{number:,.0f}" if number >= 1000 else f"{number:.3g}"
