"""A page on the local network that runs a bundle in whatever browser opens it, and what that browser sends back."""
