"""The JSON API: thin handlers that read a request, call one service and write its answer."""
