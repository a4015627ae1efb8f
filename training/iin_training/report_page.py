"""A run or a bundle as one page of HTML, with all its pictures inside."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from iin_bundle import Bundle
from jinja2 import Environment
from markdown_it import MarkdownIt

from iin_training.model_card import model_card

__all__ = ["write_page"]

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { border-bottom: 1px solid #ddd; padding: .2rem .7rem .2rem 0; text-align: left; vertical-align: top; }
td { font-variant-numeric: tabular-nums; }
img { max-width: 100%; }
.samples img { width: 6rem; image-rendering: pixelated; }
.samples figure { display: inline-block; margin: 0 .7rem .7rem 0; width: 6rem; vertical-align: top; }
.samples figcaption { font-size: .7rem; line-height: 1.2; overflow-wrap: anywhere; }
</style>
</head>
<body>
{% if card %}{{ card | safe }}{% else %}<h1>{{ title }}</h1>{% endif %}
{% if state %}<p>{{ state }}</p>{% endif %}
{% if samples %}<h2>Held-out pictures that come with the bundle</h2>
<div class="samples">
{% for name, source in samples.items() %}<figure><img src="{{ source }}" alt="{{ name }}">
<figcaption>{{ name }}</figcaption></figure>
{% endfor %}</div>{% endif %}
{% for heading, source in drawn.items() %}<h2>{{ heading }}</h2>
<p><img src="{{ source }}" alt="{{ heading }}"></p>
{% endfor %}
{% if stages %}<h2>Stages of training</h2>
<table>
<tr><th>stage</th><th>updates</th><th>of</th><th>minutes</th></tr>
{% for stage in stages %}<tr>{% for cell in stage %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table>{% endif %}
</body>
</html>
"""


def write_page(
    path: Path,
    *,
    title: str,
    bundle: Bundle | None = None,
    drawn: Mapping[str, Path] | None = None,
    stages: Iterable[Sequence[str]] = (),
    state: str = "",
) -> None:
    """Write the page into the HTML file `path`.

    Args:
        path: where the page goes.
        title: its name, and its heading where there is no bundle.
        bundle: its model card and sample pictures.
        drawn: PNG files by their headings.
        stages: of each its name, updates, how many there will be, and minutes.
        state: where the run is, in a line.

    Raises:
        OSError: where it cannot be written.

    """
    found = sorted((bundle.directory / "samples").glob("*.png")) if bundle else []
    page = Environment(autoescape=True).from_string(PAGE)
    # What the card is made of, and nothing else: names and meanings may be a user's, and are text.
    markdown = MarkdownIt("zero").enable(["heading", "list", "table", "backticks"])
    path.write_text(
        page.render(
            title=title,
            card=markdown.render(model_card(bundle.manifest)) if bundle else "",
            state=state,
            samples={sample.stem: _inside(sample) for sample in found},
            drawn={heading: _inside(picture) for heading, picture in (drawn or {}).items()},
            stages=list(stages),
        ),
        encoding="utf-8",
    )


def _inside(picture: Path) -> str:
    """A PNG file as the address of itself."""
    return f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"
