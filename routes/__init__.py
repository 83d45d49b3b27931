"""One blueprint a file, named after its URL; a view is 1 to 6 lines."""

from werkzeug.routing import BaseConverter


class Anything(BaseConverter):
    """The rest of a URL path, whatever it holds: empty, slashes, ``%00``."""

    regex = "(?s:.*)"
    part_isolating = False
