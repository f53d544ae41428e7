"""Parts of HTML reports: the style, and plots as SVG elements."""

import io

from matplotlib.figure import Figure

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; padding: .25rem .75rem; }
th, td { border-bottom: 1px solid #ddd; } td.number { text-align: right; font-variant-numeric: tabular-nums; }
.missed { color: #b00020; font-weight: 600; } .met { color: #1b6e20; } svg { max-width: 100%; height: auto; }
"""


def svg(figure: Figure) -> str:
    """Return the figure as an SVG element."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    text = buffer.getvalue()
    return text[text.index("<svg") :]
