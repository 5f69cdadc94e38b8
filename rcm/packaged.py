"""What rcm ships: files in `rcm/assets`, which settings name `packaged:NAME`, and the options in `conf`."""

from pathlib import Path

PACKAGED = "packaged:"
PACKAGE = Path(__file__).parent
ASSETS = PACKAGE / "assets"
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"  # installed, or in the repository


def located(name: str) -> Path:
    """The path that a setting means: one of ours, or its own, with `~` for the home."""
    return ASSETS / name.removeprefix(PACKAGED) if name.startswith(PACKAGED) else Path(name).expanduser()
