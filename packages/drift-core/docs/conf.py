"""Sphinx configuration of the documentation site, which README.md says how to build.

With the tag `draft` (`-t draft`) the gallery is not run, and pages of source and contents of API pages are
left out, which take most of the time.
"""

import sys
from pathlib import Path

from drift_core.runs.figures import DATA_COLOUR

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
sys.path.insert(0, str(HERE / "extensions"))

project = "Kernel-gradient drifting"
copyright = "the kernel-gradient drifting authors"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "api",
    "links",
    "mathml",
    "measured",
    "readmes",
]
if not tags.has("draft"):
    extensions.append("sphinx.ext.viewcode")
exclude_patterns = ["site"]

# Pages are Markdown, whose headings have GitHub's anchors, so that links work on both.
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
nitpicky = True

# Docstrings are prose with Google's sections and code in single backticks.
default_role = "code"
add_module_names = False
toc_object_entries = not tags.has("draft")
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
maximum_signature_line_length = 90
# Types in signatures that the site does not describe, of other libraries or internal.
nitpick_ignore_regex = [(r"py:(?!obj).*", r".*"), (r"py:obj", r"(?!drift_).*")]

scripts = HERE.parent / "examples" / "gallery"
for rendered in HERE.glob("gallery/plot_*.rst"):
    if not (scripts / rendered.with_suffix(".py").name).exists():
        rendered.unlink()
sphinx_gallery_conf = {
    "examples_dirs": str(scripts),
    "gallery_dirs": "gallery",
    "filename_pattern": r"/plot_",
    "backreferences_dir": None,
    "download_all_examples": False,
    "image_scrapers": ("matplotlib",),
    "plot_gallery": not tags.has("draft"),
    "min_reported_time": 600,
    "remove_config_comments": True,
    "show_memory": False,
    "show_signature": False,
    "write_computation_times": False,
}

html_theme = "furo"
html_title = project
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_search_summary = False  # a browser does not let a page of file:// read others
html_theme_options = {
    "light_css_variables": {"color-brand-primary": DATA_COLOUR, "color-brand-content": DATA_COLOUR},
    "dark_css_variables": {"color-brand-primary": "#56B4E9", "color-brand-content": "#56B4E9"},
}
copybutton_exclude = ".linenos, .gp, .go"
