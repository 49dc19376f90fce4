"""From a template of this folder to one HTML page that loads nothing."""

from __future__ import annotations

from importlib import resources
from typing import Any


def render(template: str, page: dict[str, Any]) -> str:
    """Return the HTML of `page`; every text in it is escaped.

    Parameters
    ----------
    template
        File name of a template beside this module; it may extend and include others.
    page
        What the template shows; a name it lacks is an error.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    folder = resources.files("topokd_edge.report")
    environment = Environment(
        loader=FunctionLoader(lambda name: folder.joinpath(name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(page)
