"""One function per method of the API: it checks nothing, builds the request and says how to ask."""
