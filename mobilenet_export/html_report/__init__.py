"""A bundle as one HTML page that needs nothing beside it: no script, no network, the same bytes every time.

`holdings` reads what a bundle holds, `figures` draws it with matplotlib, and the other modules put it into words:
`page` for one bundle, `comparison` for several.
"""
