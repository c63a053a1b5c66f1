"""From what a file says of errors to what writes them."""

from __future__ import annotations

from portico.config.errors import Errors
from portico.config.errors import ErrorText as ErrorTextConfig
from portico.config.schema import Config, Route
from portico.http.error_shapes import SHAPES, ErrorText, ErrorWriter, ProblemWriter

_HUNDREDS = {"4xx": 4, "5xx": 5}


class ErrorWriters:
    """The writers of one configuration; routes that say nothing of their own share one."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.of_file = _writer(config.errors)
        """Writes what fails where there is no route."""
        self._of_services = {
            name: _writer(config.errors, service.errors)
            for name, service in config.services.items()
            if service.errors is not None
        }

    def of_route(self, route: Route) -> ProblemWriter:
        """Return what writes the problems of a route."""
        service = getattr(route.endpoint.config, "service", "")
        if route.errors is None:
            return self._of_services.get(service, self.of_file)
        known = self._config.services.get(service)
        return _writer(self._config.errors, None if known is None else known.errors, route.errors)


def _writer(*scopes: Errors | None) -> ProblemWriter:
    """Return the writer of what these scopes say, the widest first: each key of a narrower one replaces a wider's."""
    shape, html = "problem", "on"
    said: dict[str, ErrorTextConfig | None] = {}
    for errors in scopes:
        if errors is not None:
            shape, html = errors.shape or shape, errors.html or html
            said |= errors.texts
    texts = {
        _HUNDREDS.get(status) or int(status): ErrorText(text.body, text.content_type)
        for status, text in said.items()
        if text is not None
    }
    return ErrorWriter(SHAPES[shape], html=html == "on", texts=texts).write
