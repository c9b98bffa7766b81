"""A bundle as one HTML page that needs nothing beside it: no script, no network, the same bytes every time.

`holdings` reads what a bundle holds, `figures` draws it with matplotlib, `sections`, `page` and `comparison` put it into words.
"""
