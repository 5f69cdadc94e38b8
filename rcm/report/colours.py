"""The colours of maps, on the page and in print."""

from matplotlib import colormaps
from matplotlib.colors import Colormap

PLUS, MINUS = "#b2182b", "#2166ac"  # edges in print; those of the page follow its theme (page.css)
GREY = "0.8"  # cells that were not computed


def colours(center: float | None) -> Colormap:
    """Red above and blue below a center; one ramp where there is none."""
    return colormaps["viridis" if center is None else "RdBu_r"].with_extremes(bad=GREY)
