"""matplotlib figures as inline SVG that takes its colours and its font from the page.

A figure is drawn with a few fixed colours; afterwards each is replaced by the CSS variable of the same role, so that
one drawing serves the light and the dark page. Ids get a prefix, because several drawings share one HTML document.

Deterministic: no date, no version comment, and clip paths hashed with a fixed salt.
"""

import io
import re

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK, MUTED, GRID = "#1d2733", "#66717f", "#dfe4ea"
GOOD, TIE, BAD = "#2c8a66", "#b9c2cc", "#c8553d"
SERIES = ("#2b6cb0", "#d97a1e", "#7a5bb5", "#1f9a94", "#b8457d", "#8a7a2f")
_ROLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    GOOD: "--good",
    TIE: "--tie",
    BAD: "--bad",
    **{color: f"--series-{index + 1}" for index, color in enumerate(SERIES)},
}
_SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "gemma_keras report",
    "svg.id": None,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "legend.labelcolor": INK,
    "axes.unicode_minus": True,
    "path.simplify": True,
}


def settings() -> "matplotlib.RcParams":
    """The context in which every figure is drawn and saved; starts from matplotlib's defaults, not from the user's
    matplotlibrc."""
    return matplotlib.rc_context({**matplotlib.rcParamsDefault, **_SETTINGS, "backend": "agg"})


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty figure of one panel. Several panels are several figures, which the page lays out in as many columns as
    it has room for.

    Args:
        width: inches; 1 inch is 72 SVG units, and about as many pixels on a phone.
        height: inches.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    axis = figure.subplots()
    axis.patch.set_alpha(0)
    axis.tick_params(length=0)
    return figure, axis


def to_svg(figure: Figure, prefix: str, label: str) -> str:
    """Save a figure as an `<svg>` element for an HTML page.

    Args:
        figure: what was drawn; artists that got a `gid` keep it as `id`, after the prefix.
        prefix: put before every id; unique within the page.
        label: what the picture shows, for readers who cannot see it; plain text.

    Returns:
        The element, with CSS variables for colours and no reference outside itself.
    """
    FigureCanvasSVG(figure)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Type": None, "Format": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.S)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)
    text = text.replace("xlink:href", "href")
    text = re.sub(r'\bid="([^"]*)"', rf'id="{prefix}-\1"', text)
    text = re.sub(r'href="#([^"]*)"', rf'href="#{prefix}-\1"', text)
    text = re.sub(r"url\(#([^)]*)\)", rf"url(#{prefix}-\1)", text)
    for color, role in _ROLES.items():
        text = text.replace(color, f"var({role})")
    text = re.sub(r"font: ([^;\"]*?)'DejaVu Sans'[^;\"]*", r"font: \1var(--sans)", text)
    text = re.sub(r"font-family: [^;\"]*", "font-family: var(--sans)", text)
    width, height = (round(inches * 72) for inches in figure.get_size_inches())
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    opening = f'<svg role="img" aria-label="{_attribute(label)}" {size}>'
    return re.sub(r"<svg[^>]*>", lambda _: opening, text, count=1).strip()


def identifier(*names: str) -> str:
    """A string that can stand in an `id`: everything but letters, digits and `_` becomes `-`."""
    return "--".join(re.sub(r"[^A-Za-z0-9_]", "-", name) for name in names)


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")
