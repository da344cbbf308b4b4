"""How the documentation is built: ``make docs``."""

from pygments.lexers.special import TextLexer
from sphinx.highlighting import lexers

from otel_personalization.version import __version__

# Pygments knows no LogQL, and of PromQL no recorded names, which have colons: it warns of both.
lexers |= dict.fromkeys(("logql", "promql"), TextLexer())

project = "otel-personalization"
author = "The otel-personalization authors"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"otel-personalization {__version__}"
default_role = "code"
myst_heading_anchors = 3
autodoc_typehints = "none"  # the docstrings say it in words
autodoc_member_order = "bysource"
