"""The example models. This file holds only their names, so that checking which exist imports
nothing heavy."""

LIGHT = ("iris", "penguins-lr", "penguins-rf", "penguins-svm", "cover-small", "cover-middle")
HEAVY = ("cover-heavy",)
"""Takes minutes and gigabytes to convert."""
BOOSTED = ("cover-lightgbm",)
"""Needs the extra `lightgbm`."""
GROUPS = {
    "light": LIGHT,
    "all": LIGHT + HEAVY,
    "bench": ("iris", "cover-middle", *BOOSTED),
    "penguins": tuple(name for name in LIGHT if name.startswith("penguins")),
    "cover": tuple(name for name in LIGHT + HEAVY if name.startswith("cover")),
}
NAMES = LIGHT + HEAVY + BOOSTED


def expand(asked: list[str]) -> list[str]:
    """Replace groups by their names; each name once, in order.

    Raises:
        KeyError: neither a name nor a group; its argument is the unknown word.
    """
    names: dict[str, None] = {}
    for item in asked:
        group = GROUPS.get(item, (item,) if item in NAMES else None)
        if group is None:
            raise KeyError(item)
        names.update(dict.fromkeys(group))
    return list(names)
